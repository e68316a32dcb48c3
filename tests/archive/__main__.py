"""`scripts/prove archive`: a run is archived to a real S3 server under kills, and replayed from it."""

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import click
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from odradek.infra.app.bench.harness.site import kafka
from odradek.infra.app.local_kafka import LocalBroker
from odradek.infra.archive import Archive, ArchiveSettings, archive_of
from odradek.infra.archive.validation import ValidatedArchive, validated
from odradek.infra.bus import BusSettings, KafkaAppender, admin, running, to_end
from odradek.infra.runtime.loop_thread import LoopThread
from odradek.schemas.topics import CONVERSATIONS, TOPICS
from odradek.streams.history import CountSpan, Selection
from odradek.streams.replay import replay
from odradek.trainer.feed.readers.batch_reader import LogGroups
from odradek.trainer.feed.rows import rows_of
from odradek.trainer.settings import TrainerSettings
from tests.archive.server import S3Server
from tests.datasets.test_export_data import conversation_of
from tests.support.trainer.trained_log import TrainedLog, append

PREFIX: Final = "runs/main"
RECORDS: Final = 20
"""Of an object: small, so that there are many to be killed between."""
WAIT_S: Final = 120.0
ODRADEK: Final = (
    f"import odradek.infra.archive.writer as m; m.OBJECT_RECORDS = {RECORDS}\n"
    "from odradek.infra.app.cli import main; main()"
)
ARCHIVED: Final = [row.name for row in TOPICS if row.archived]


async def recorded(bus: BusSettings, groups: int) -> None:
    """Groups, the steps of a trainer, and what was said."""
    log = TrainedLog(bus, TrainerSettings(model="m", rows_per_step=10, max_staleness=3))
    await log.publish(groups)
    await log.train(groups // 4)
    appender = await KafkaAppender.connect(bus, linger_ms=5)
    said = [
        (episode.episode_id, conversation_of(episode))
        for group in log.offset_of.values()
        for _, episode in group.episodes
    ]
    await asyncio.gather(
        *(append(appender, CONVERSATIONS.name, name, words) for name, words in said)
    )
    await appender.aclose()


async def held(bus: BusSettings) -> dict[str, list[Any]]:
    """All records of the archived topics, by topic, in the order of their places."""
    return {
        topic: sorted(
            [record async for record in to_end(bus, topic)],
            key=lambda record: (record.partition, record.offset),
        )
        for topic in ARCHIVED
    }


def fed(bus: BusSettings, topic: str, archive: Archive | None) -> list[tuple[Any, ...]]:
    """The digest of each batch as a trainer reads it, and the bytes of its rows."""
    thread = LoopThread()
    source = LogGroups(thread, bus, topic, ends=True, archive=archive)
    try:
        source.open(0)
        found = []
        while not source.ended():
            if group := source.next(0.5):
                rows = rows_of(group, weigh="episode")
                found.append(
                    (
                        group.batch.digest(),
                        group.refused,
                        [
                            (row.ids.tobytes(), row.mask.tobytes(), row.logprobs.tobytes(),
                             row.advantage, row.oldest)
                            for row in rows
                        ],
                    )
                )  # fmt: skip
        return found
    finally:
        source.close()
        thread.close()


async def forget(bus: BusSettings) -> None:
    """Retention, all at once."""
    rows = [row for row in TOPICS if row.archived and not row.compact]
    async with running(admin(bus), bus) as client:
        described = await client.describe_topics([bus.topic(row.name) for row in rows])
        await client.delete_records(
            {
                TopicPartition(topic["topic"], each["partition"]): RecordsToDelete(-1)
                for topic in described
                for each in topic["partitions"]
            }
        )


class ArchiverKills:
    """Archivers that are killed as soon as some more of their objects are there."""

    def __init__(self, environ: dict[str, str], settings: ArchiveSettings, seed: int) -> None:
        self._environ = environ
        self._settings = settings
        self._random = random.Random(seed)

    def begin(self) -> "subprocess.Popen[bytes]":
        """An archiver, under way."""
        return subprocess.Popen(
            [sys.executable, "-c", ODRADEK, "archive", "run", "--json"],
            env=self._environ, stdout=subprocess.PIPE,
        )  # fmt: skip

    def objects(self) -> int:
        """How many the store lists."""
        archive = archive_of(self._settings)
        assert archive is not None
        return len(archive.store().sizes())

    def kill(self, at_once: int) -> tuple[int, ValidatedArchive]:
        """Begin archivers and kill them with SIGKILL; the objects that they left, each read through."""
        before, more = self.objects(), self._random.randint(1, 12)
        archivers = [self.begin() for _ in range(at_once)]
        deadline = time.monotonic() + WAIT_S
        while self.objects() < before + more and any(one.poll() is None for one in archivers):
            assert time.monotonic() < deadline, "no object came"
        killed = sum(one.poll() is None for one in archivers)
        for one in archivers:
            one.kill()
            one.communicate()
        return killed, self.validated()

    def validated(self) -> ValidatedArchive:
        """The archive, read through."""
        archive = archive_of(self._settings)
        assert archive is not None
        return asyncio.run(validated(archive))


def verb(environ: dict[str, str], *words: str) -> "subprocess.CompletedProcess[str]":
    """A verb of the command line, as a person calls it."""
    return subprocess.run(
        [sys.executable, "-m", "odradek.infra.app.cli", *words],
        env=environ, capture_output=True, text=True, timeout=WAIT_S, check=False,
    )  # fmt: skip


def damaged(server: S3Server, environ: dict[str, str]) -> str:
    """Turn a bit of an object in the server's folder; what `verify` says of it, and who reads it."""
    path = min(server.objects.rglob("rl.batches.v1/**/*.parquet"))
    whole = path.read_bytes()
    middle = len(whole) // 3
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 64]) + whole[middle + 1 :])
    checked = verb(environ, "archive", "verify")
    read = verb(environ, "replay", "--batches", "0:5", "--to", "never", "--dry-run")
    path.write_bytes(whole)
    assert checked.returncode == 1, checked
    assert read.returncode == 2, read
    for said in (checked.stderr, read.stderr):
        assert f"{path.name} is damaged" in said, said
    return read.stderr.strip()


def prove(program: Path, folder: Path, *, groups: int, kills: int, seed: int) -> dict[str, Any]:
    """The whole proof; what it counted."""
    with LocalBroker() as broker, S3Server(program, folder) as server:
        bus = BusSettings(
            bootstrap_servers=broker.bootstrap_servers, topic_prefix="p.", topic_partitions=3
        )
        settings = ArchiveSettings(
            location=f"s3://archive/{PREFIX}", endpoint_url=server.url, **server.keys
        )
        environ = {**os.environ, **kafka(bus), **server.variables(PREFIX)}
        asyncio.run(recorded(bus, groups))
        stood = asyncio.run(held(bus))
        steps = Selection(steps=CountSpan(1, None))
        first = asyncio.run(replay(bus, steps, "again"))
        rows = fed(bus, "again", None)
        click.echo(
            f"{sum(map(len, stood.values()))} records, {len(rows)} batches in steps", err=True
        )

        archiving, killed = ArchiverKills(environ, settings, seed), 0
        for number in range(kills):
            died, report = archiving.kill(1 + number % 2)
            assert report.whole, report
            killed += died
            click.echo(f"{killed} killed, {archiving.objects()} objects, all whole", err=True)
        last = archiving.begin()
        assert last.communicate(timeout=WAIT_S) and last.returncode == 0
        report = archiving.validated()
        assert report.whole and not report.unknown, report
        assert report.records >= sum(map(len, stood.values()))  # ranges of two may overlap

        asyncio.run(forget(bus))
        lost = verb({**environ, "ODRADEK_ARCHIVE": ""}, "replay", "--batches", "0:5", "--to", "x")
        assert lost.returncode == 2, lost
        told = verb(environ, "replay", "--steps", "1:", "--to", "more", "--json")
        assert told.returncode == 0, told
        archive = archive_of(settings)
        again, more = json.loads(told.stdout), fed(bus, "more", archive)
        assert list(first.digests) == again["digests"]
        assert rows == more == fed(bus, "again", archive)
        refusal = damaged(server, environ)
        keyless = {**environ, "ODRADEK_ARCHIVE_SECRET_KEY": "wrong"}
        wrong = verb(keyless, "archive", "list")
        assert wrong.returncode == 2 and "the store refuses" in wrong.stderr, wrong
    away = verb({**environ, "ODRADEK_ARCHIVE_TIMEOUT_S": "2"}, "archive", "list")
    assert away.returncode == 2 and "does not answer" in away.stderr, away
    return {
        "records": sum(map(len, stood.values())),
        "objects": sum(each.objects for each in report.partitions),
        "kills": killed,
        "batches": len(rows),
        "rows": sum(len(each[2]) for each in rows),
        "equal": True,
        "refused": {"damaged": refusal, "keys": wrong.stderr.strip(), "away": away.stderr.strip()},
    }


@click.command()
@click.option("--server", type=click.Path(exists=True, path_type=Path), required=True, hidden=True)
@click.option("--groups", default=200, show_default=True, type=click.IntRange(8))
@click.option("--kills", default=12, show_default=True, type=click.IntRange(1))
@click.option("--seed", default=1, show_default=True)
@click.option("--json", "out", type=click.Path(dir_okay=False, path_type=Path), help="Write it.")
def main(server: Path, groups: int, kills: int, seed: int, out: Path | None) -> None:
    """Archive a run to a real S3 server while archivers are killed -9, delete it, and replay it.

    After each kill every object is read through. In the end all records of the log are gone, and
    batches, digests and the trainer's rows that are read from the archive equal the first ones. A
    damaged object, wrong keys and a server that is away are refused.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = prove(server, Path(folder), groups=groups, kills=kills, seed=seed)
    found["seconds"] = round(time.monotonic() - began, 1)
    text = json.dumps(found, indent=2)
    click.echo(text)
    if out is not None:
        out.write_text(f"{text}\n")


if __name__ == "__main__":
    main()
