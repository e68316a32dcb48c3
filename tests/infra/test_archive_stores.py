"""Where the archive is: a folder and an S3 store (moto's), by one suite, and what both refuse."""

import asyncio
import os
import socket
import sys
import time
from contextlib import asynccontextmanager
from functools import partial

import pytest
from aiokafka.errors import OffsetOutOfRangeError
from click.testing import CliRunner

from odradek.infra.app.cli import main
from odradek.infra.archive import Archive, ArchiveSettings, archive_of
from odradek.infra.archive.follow import runs
from odradek.infra.archive.names import ObjectName
from odradek.infra.archive.objects import encoded
from odradek.infra.archive.range import OffsetRange
from odradek.infra.archive.s3 import S3Store
from odradek.infra.archive.store import store_of
from odradek.infra.archive.writer import ArchivedRun, Archiver, LostRange
from odradek.infra.bus import BusSettings, Record
from odradek.infra.errors import (
    ArchiveDamaged,
    ArchiveHole,
    ArchiveRefused,
    ArchiveUnreachable,
    KafkaUnreachable,
)


@pytest.fixture(scope="module")
def s3():
    """Settings of a bucket; each test has a prefix of its own."""
    import logging

    from moto.server import ThreadedMotoServer
    from pyarrow import fs

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    keys = {"access_key": "reader", "secret_key": "canary-of-the-archive"}
    fs.S3FileSystem(
        **keys, region="us-east-1", scheme="http", endpoint_override=f"127.0.0.1:{port}",
        allow_bucket_creation=True,
    ).create_dir("bucket")  # fmt: skip
    yield {**keys, "endpoint_url": f"http://127.0.0.1:{port}"}
    server.stop()


@pytest.fixture(params=["folder", "s3"])
def settings(request, tmp_path):
    """An archive in which nothing is."""
    if request.param == "folder":
        return ArchiveSettings(location=str(tmp_path / "archive"))
    name = f"s3://bucket/{tmp_path.name}"
    return ArchiveSettings(location=name, **request.getfixturevalue("s3"))


def put(store, first, end, *, at=None, topic="t"):
    """An object of the offsets [first, end), with a record at each even one."""
    name = ObjectName(topic, 1, 3, OffsetRange(first, end))
    records = [Record(topic, 1, n, f"k{n}", b"%d" % n, (), float(n)) for n in range(first, end, 2)]
    store.write(str(at or name), encoded(name, records))
    return name


async def test_what_was_written_is_there_whole(settings):
    """Again under the same name, it is there once; what nobody wrote is not."""
    store = store_of(settings)
    assert {} == store.sizes()
    name = put(store, 0, 10)
    data = store.read(str(name))
    put(store, 0, 10)
    assert {str(name): len(data)} == store.sizes()
    with pytest.raises(ArchiveRefused, match=r"none\.parquet"):
        store.read("t/none.parquet")
    assert 0 == store.sweep()


async def test_records_are_read_by_offset(settings):
    """Objects may overlap. Where none is, the hole is named, with what there is."""
    store = store_of(settings)
    for span in ((0, 10), (6, 20), (30, 40)):
        put(store, *span)
    archive = Archive(partial(store_of, settings))
    assert [OffsetRange(0, 20), OffsetRange(30, 40)] == await archive.held("t", 1)
    assert [] == await archive.held("t", 0)
    assert (3, 0) == (await archive.partitions("t"), await archive.partitions("other"))
    records, end = await archive.stretch("t", 1, 7)
    assert (list(range(8, 20, 2)), 20) == ([record.offset for record in records], end)
    assert b"38" == (await archive.newest("t", 1)).value
    assert b"4" == (await archive.record("t", 1, 4)).value
    assert None is await archive.record("t", 1, 5) is await archive.record("t", 1, 25)
    with pytest.raises(ArchiveHole, match=r"t/1/25 .* 0 to 19, 30 to 39"):
        await archive.stretch("t", 1, 25)


def test_a_damaged_object_ends_the_reading(settings):
    """`verify` names it, what is missing between objects, and what is no object."""
    store = store_of(settings)
    good, bad = put(store, 0, 10), put(store, 20, 30)
    whole = store.read(str(bad))
    store.write(str(bad), whole.replace(b"k22", b"k23") if b"k22" in whole else whole[:-9])
    store.write("notes.txt", b"mine")
    archive = archive_of(settings)
    assert b"0" == asyncio.run(archive.record("t", 1, 0)).value
    with pytest.raises(ArchiveDamaged, match=str(bad)):
        asyncio.run(archive.record("t", 1, 22))
    answer = CliRunner().invoke(
        main, ["archive", "verify", settings.location], env=variables(settings)
    )
    assert 1 == answer.exit_code
    assert f"{bad} is damaged" in answer.output
    assert "t/1: offsets 10 to 19 are not archived" in answer.output
    assert "notes.txt is no object" in answer.output
    assert "1 of 2 objects are whole, with 5 records" in answer.output
    listed = CliRunner().invoke(main, ["archive", "list"], env=variables(settings))
    assert (1, True) == (listed.exit_code, "0 to 29" in listed.output)
    assert str(good) not in answer.output


def variables(settings):
    """Settings as a shell has them."""
    names = {"ODRADEK_ARCHIVE": settings.location, "AWS_ENDPOINT_URL": settings.endpoint_url}
    if settings.access_key is not None:
        names["ODRADEK_ARCHIVE_ACCESS_KEY"] = settings.access_key.get_secret_value()
        names["ODRADEK_ARCHIVE_SECRET_KEY"] = settings.secret_key.get_secret_value()
    return names


def test_what_a_dead_writer_left_is_swept_and_never_read(tmp_path):
    """A file without a name yet is no object, and a young one may be somebody's."""
    settings = ArchiveSettings(location=str(tmp_path))
    store = store_of(settings)
    name = put(store, 0, 10)
    folder = (tmp_path / str(name)).parent
    for part, age in ((".a.part", 7200), (".b.part", 0)):
        (folder / part).write_bytes(b"half")
        os.utime(folder / part, (time.time() - age,) * 2)
    assert [str(name)] == list(store.sizes())
    assert 1 == store.sweep()
    assert {".b.part", (tmp_path / str(name)).name} == {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("", "no archive is named"),
        ("gs://bucket/x", "a folder, or s3://bucket/prefix"),
        ("s3://", "names no bucket"),
        ("s3://me:secret@bucket/x", "names no bucket"),
    ],
)
def test_a_place_that_is_none_is_refused(location, says):
    """Before anything is read or written."""
    with pytest.raises(ArchiveRefused, match=says) as caught:
        store_of(ArchiveSettings(location=location))
    assert "secret@" not in str(caught.value)


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path):
    """It names the path, and what the system says."""
    (tmp_path / "file").write_text("")
    store = store_of(ArchiveSettings(location=str(tmp_path / "file" / "below")))
    with pytest.raises(ArchiveRefused, match=r"file: .*archive's folder must be"):
        put(store, 0, 10)


def test_a_bucket_that_is_not_there_is_named(s3):
    """An empty archive would look the same."""
    store = store_of(ArchiveSettings(location="s3://no-such-bucket/x", **s3))
    with pytest.raises(ArchiveRefused, match="no bucket no-such-bucket"):
        store.sizes()
    with pytest.raises(ArchiveRefused, match="NO_SUCH_BUCKET"):
        put(store, 0, 10)


def test_without_its_extra_one_line_says_what_to_install(monkeypatch, tmp_path):
    """Whichever verb is asked."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    answer = CliRunner().invoke(main, ["archive", "list", str(tmp_path)])
    assert "odradek[archive]" in answer.output


class FailingArchiver:
    """Comes to the next of some results each time, or raises it."""

    def __init__(self, *results):
        self.results = list(results)

    async def run(self, *, dry_run=False, moved=None):
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result


def lost(*firsts):
    return ArchivedRun(0, 0, 0, 0, tuple(LostRange("t", 0, first, first) for first in firsts))


async def test_who_follows_outlasts_an_outage_and_names_a_loss_once():
    """What only a person can mend ends it; a single run ends with any error."""
    away, refused = ArchiveUnreachable("away"), ArchiveRefused("no room")
    archiver = FailingArchiver(lost(), away, lost(3), lost(3, 7), KafkaUnreachable("x"), refused)
    seen, pauses = [], []

    async def pause():
        pauses.append(len(seen))

    with pytest.raises(ArchiveRefused, match="no room"):
        async for ended in runs(archiver, pause):
            seen.append([each.first for each in ended.lost])
    assert [[], [3], [7]] == seen
    assert [1, 1, 2, 3, 3] == pauses
    with pytest.raises(ArchiveUnreachable):
        await anext(runs(FailingArchiver(away), None))
    assert [lost(5)] == [ended async for ended in runs(FailingArchiver(lost(5)), None)]


class ForgetfulLog:
    """Ten records, of which retention takes offsets 0 to 6 once the first four are read."""

    def __init__(self):
        self.first = 0

    async def bounds(self, topic):
        return [(self.first, 10)]

    async def stretch(self, topic, partition, offset, *, most):
        if offset < self.first:
            raise OffsetOutOfRangeError({})
        end = 10 if self.first else 4
        self.first = 7
        return [Record("t", 0, at, None, b"x") for at in range(offset, end)], end


async def test_what_was_read_before_retention_came_is_archived(tmp_path, monkeypatch):
    """The rest of the range is, too; what lies between is lost, and named."""
    log = ForgetfulLog()

    @asynccontextmanager
    async def looking_up(bus, **more):
        yield log

    monkeypatch.setattr("odradek.infra.archive.writer.looking_up", looking_up)
    archive = archive_of(ArchiveSettings(location=str(tmp_path)))
    ended = await Archiver(BusSettings(), archive, ["t"]).run()
    assert (LostRange("t", 0, 4, 6),) == ended.lost
    await archive.refresh()
    assert [OffsetRange(0, 4), OffsetRange(7, 10)] == await archive.held("t", 0)
    assert (2, 7) == (ended.objects, ended.records)


def test_what_the_store_itself_calls_damaged_is_damaged():
    """Moto checks nothing, but real stores hold what they send against their own checksum."""

    class Turned:
        def open_input_file(self, path):
            raise OSError(
                "AWS Error VALIDATION during GetObject operation: Response checksums mismatch"
            )

    with pytest.raises(ArchiveDamaged, match=r"^t/x\.parquet is damaged"):
        S3Store(Turned(), "bucket", "run").read("t/x.parquet")


def test_half_a_key_is_refused(s3):
    """The other half would be looked for elsewhere."""
    given = {**s3, "secret_key": None}
    with pytest.raises(ArchiveRefused, match="belong together"):
        store_of(ArchiveSettings(location="s3://bucket/x", **given))


def test_a_store_that_is_silent_or_away_is_an_error_in_time(s3, monkeypatch):
    """Retriable: `--follow` tries again. No secret is in the line."""
    monkeypatch.setattr("odradek.infra.archive.s3.ATTEMPTS", 1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for port in (1, silent.getsockname()[1]):
            where = {**s3, "endpoint_url": f"http://127.0.0.1:{port}"}
            settings = ArchiveSettings(location="s3://bucket/x", timeout_s=0.2, **where)
            with pytest.raises(ArchiveUnreachable, match="ENDPOINT_URL") as caught:
                store_of(settings).sizes()
            assert caught.value.retriable
            assert "canary" not in f"{caught.value}{settings}"
