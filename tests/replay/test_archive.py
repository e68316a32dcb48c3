"""The archive of a log: what is copied, what a kill leaves, and replaying what the log has lost."""

import asyncio
import os
import signal
import subprocess
import sys
from functools import partial

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete
from click.testing import CliRunner

from odradek.infra.app.bench.harness.site import kafka
from odradek.infra.app.cli import main
from odradek.infra.app.datasets.export import export
from odradek.infra.app.history.steps import LogHistory
from odradek.infra.archive import ArchiveSettings, archive_of, looking_back, writer
from odradek.infra.archive.directory import DirectoryStore
from odradek.infra.archive.reader import Archive
from odradek.infra.archive.validation import validated
from odradek.infra.archive.writer import Archiver
from odradek.infra.bus import (
    FencedWriter,
    KafkaAppender,
    OutgoingRecord,
    admin,
    ensure_topics,
    producer,
    running,
    to_end,
)
from odradek.infra.errors import ArchiveHole, ArchiveMismatch, TopicMissing
from odradek.infra.runtime.crash_points import POINTS
from odradek.infra.runtime.loop_thread import LoopThread
from odradek.schemas.events import Reward
from odradek.schemas.topics import BATCHES, CONVERSATIONS, EPISODES, REVISIONS, STEPS, TOPICS
from odradek.streams.errors import HistoryGone
from odradek.streams.history import CountSpan, Selection
from odradek.streams.history.patterns import Phrase
from odradek.streams.history.search import findings
from odradek.streams.replay import replay
from odradek.trainer.feed.readers.batch_reader import LogGroups
from odradek.trainer.settings import TrainerSettings
from tests.datasets.test_export_data import conversation_of
from tests.support.trainer.trained_log import TrainedLog, append, episode_of

pytestmark = pytest.mark.broker

ARCHIVED = [row.name for row in TOPICS if row.archived]
STEPS_TAKEN = Selection(steps=CountSpan(1, None))


def archiver(bus, folder, topics=ARCHIVED, **limits):
    """An archiver to a folder, of small objects."""
    archive = Archive(partial(DirectoryStore, folder))
    return Archiver(bus, archive, topics, **{"object_records": 7, **limits})


async def deleted(bus, topics, before=-1):
    """Retention, as it will come: the records of topics are gone, all of them or the first."""
    async with running(admin(bus), bus) as client:
        described = await client.describe_topics([bus.topic(topic) for topic in topics])
        await client.delete_records(
            {
                TopicPartition(topic["topic"], each["partition"]): RecordsToDelete(before)
                for topic in described
                for each in topic["partitions"]
            }
        )


def weighed(seed, task, sample, version):
    """An episode that says what its reward was made of, so that late ones can change it."""
    return msgspec.structs.replace(episode_of(seed, task, sample, version), weights={"right": 1.0})


async def trained(bus):
    """A run of three steps, the words of its episodes, and late rewards that it did not use."""
    log = TrainedLog(bus, TrainerSettings(model="m", rows_per_step=10, max_staleness=3))
    await log.publish(9)
    await log.train(3)
    appender = await KafkaAppender.connect(bus)
    for group in log.offset_of.values():
        for _, episode in group.episodes:
            name, words = episode.episode_id, conversation_of(episode)
            await append(appender, CONVERSATIONS.name, name, words)
        late = Reward(episode_id=name, component="right", value=0.75, source="judge")
        await append(appender, REVISIONS.name, name, late)
    await appender.aclose()
    return log


async def seen(bus, archive, folder):
    """All that people and trainers read of the past, by the way that they read it."""
    one = await replay(bus, STEPS_TAKEN, "again", archive=archive, dry_run=True)
    late = await replay(
        bus, Selection(offsets=CountSpan()), "again", archive=archive, dry_run=True,
        revision="latest",
    )  # fmt: skip
    async with looking_back(bus, archive) as lookup:
        views = [await LogHistory(lookup).step(number) for number in (1, 3)]
    words = [found async for found in findings(bus, Phrase("About t3?"), archive=archive)]
    for kind in ("episodes", "sft"):
        await export(
            bus, STEPS_TAKEN, kind, folder / f"{kind}.jsonl", archive=archive, overwrite=True
        )
    rows = [(folder / f"{kind}.jsonl").read_bytes() for kind in ("episodes", "sft")]
    return one.digests, late.digests, late.revised, views, len(words), sorted(rows[1]), rows[0]


def fed(bus, topic, archive):
    """The groups that a trainer makes of a topic."""
    thread = LoopThread()
    source = LogGroups(thread, bus, topic, ends=True, revision="latest", archive=archive)
    try:
        source.open(0)
        groups = []
        while not source.ended():
            if group := source.next(0.2):
                groups.append((group.batch.digest(), group.episodes, group.refused))
        return groups
    finally:
        source.close()
        thread.close()


async def test_what_the_log_has_lost_is_read_from_the_archive(bus, tmp_path, monkeypatch):
    """Replay, show, find, export and the trainer's feed: the same as before, digest by digest.

    Also on a cluster where the topics are empty. On a log that goes on otherwise it is refused.
    """
    monkeypatch.setattr("tests.support.trainer.trained_log.episode_of", weighed)
    await trained(bus)
    before = await seen(bus, None, tmp_path)
    await replay(bus, STEPS_TAKEN, "again")
    groups = await asyncio.to_thread(fed, bus, "again", None)
    archive = archive_of(ArchiveSettings(location=str(tmp_path / "archive")))
    ended = await archiver(bus, tmp_path / "archive").run()
    assert ended.lost == ended.absent == ()
    held = {topic: [r async for r in to_end(bus, topic)] for topic in ARCHIVED}
    assert sum(map(len, held.values())) == ended.records
    await deleted(bus, [EPISODES.name, CONVERSATIONS.name, STEPS.name], before=3)
    assert before == await seen(bus, archive, tmp_path)
    await deleted(bus, [row.name for row in TOPICS if row.archived and not row.compact])
    assert before == await seen(bus, archive, tmp_path)
    with pytest.raises(HistoryGone, match="retention has deleted"):
        await replay(bus, Selection(offsets=CountSpan(0, 3)), "more", dry_run=True)
    done = await replay(bus, STEPS_TAKEN, "more", archive=archive)
    assert before[0] == done.digests
    assert groups == await asyncio.to_thread(fed, bus, "more", archive)
    assert 0 == (await archiver(bus, tmp_path / "archive").run()).offsets

    other = bus.model_copy(update={"topic_prefix": f"{bus.topic_prefix}new."})
    await ensure_topics(other)
    done = await replay(other, STEPS_TAKEN, "more", archive=archive)
    assert before[0] == done.digests
    assert groups == await asyncio.to_thread(fed, other, "more", archive)
    await TrainedLog(other, TrainerSettings()).publish(1, seed=9)
    with pytest.raises(ArchiveMismatch, match="of another log"):
        await replay(other, Selection(offsets=CountSpan(0, 3)), "x", archive=archive)
    with pytest.raises(ArchiveMismatch, match="not of this log"):
        await archiver(other, tmp_path / "archive").run()


async def transactions(bus, topic, parts, *, each=4):
    """Committed records with markers between, and then some of a transaction that is aborted."""
    fenced = FencedWriter(bus, "test", 0)
    await fenced.start()
    for part in range(parts):
        await fenced.write(
            *(
                OutgoingRecord(topic=topic, key="x", partition=0, value=b"%d/%d" % (part, n))
                for n in range(each)
            )
        )
    await fenced.aclose()


async def test_only_what_is_committed_is_archived_by_one_or_by_two(bus, tmp_path):
    """Markers and aborted records are no holes; what an open transaction wrote comes later."""
    await ensure_topics(bus, [(EPISODES.name, EPISODES)])
    await transactions(bus, EPISODES.name, 5)
    async with running(producer(bus, transactional_id="open"), bus) as client:
        for committed in (False, True):
            await client.begin_transaction()
            sent = await client.send(bus.topic(EPISODES.name), b"open", partition=0)
            await client.flush()
            at = (await sent).offset
            both = [archiver(bus, tmp_path, [EPISODES.name]) for _ in range(2)]
            await asyncio.gather(*(one.run() for one in both))
            held = await archive_at(tmp_path).held(EPISODES.name, 0)
            assert [(0, at)] == [(part.first, part.end) for part in held]
            await (client.commit_transaction() if committed else client.abort_transaction())
    dry = await archiver(bus, tmp_path, [EPISODES.name]).run(dry_run=True)
    assert (2, 0) == (dry.offsets, dry.objects)  # the record that is committed by now, its marker
    await archiver(bus, tmp_path, [EPISODES.name]).run()
    stood = [record async for record in to_end(bus, EPISODES.name)]
    await deleted(bus, [EPISODES.name])
    async with looking_back(bus, archive_at(tmp_path)) as lookup:
        assert stood == [record async for record in lookup.whole(EPISODES.name)]
        assert stood[5:9] == [
            one async for one in lookup.span(
                EPISODES.name, 0, start=stood[5].offset, end=stood[9].offset)
        ]  # fmt: skip
        found = await lookup.records(record.address for record in stood[::3])
        assert stood[::3] == list(found.values())
        offset, stretched = 0, []
        while offset <= at:
            records, offset = await lookup.stretch(EPISODES.name, 0, offset, most=3)
            stretched += records
        assert stood == stretched
        assert 0 == await lookup.at_time(EPISODES.name, 0, 2e9)
    report = await validated(archive_at(tmp_path))
    assert (True, len(stood)) == (report.whole, report.records)


def archive_at(folder):
    return archive_of(ArchiveSettings(location=str(folder)))


def test_what_retention_took_first_is_named_and_never_passed_over(bus, tmp_path, monkeypatch):
    """By each run, with exit code 1, and by whoever reads there. What remains is archived."""
    for name, value in {**kafka(bus), "ODRADEK_ARCHIVE": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)

    async def prepare():
        log = TrainedLog(bus, TrainerSettings())
        await log.publish(2)
        await archiver(bus, tmp_path).run()
        await log.publish(4, first=2)
        await deleted(bus, [BATCHES.name], before=4)

    asyncio.run(prepare())
    for words in (("--dry-run",), (), ("--json",)):
        answer = CliRunner().invoke(main, ["archive", "run", *words])
        assert 1 == answer.exit_code, answer.output
        if words != ("--json",):
            assert "rl.batches.v1/0: offsets 2 to 3 are lost" in answer.output
            assert "1 ranges are lost for ever" in answer.output
    (lost,) = msgspec.json.decode(answer.stdout)["lost"]
    assert {"topic": BATCHES.name, "partition": 0, "first": 2, "last": 3} == lost
    for verb in ("list", "verify"):
        answer = CliRunner().invoke(main, ["archive", verb])
        assert 1 == answer.exit_code
        assert "offsets 2 to 3 are not archived" in answer.output
    read = partial(replay, bus, to="x", dry_run=True, archive=archive_at(tmp_path))
    asyncio.run(read(Selection(offsets=CountSpan(4, 6))))
    asyncio.run(deleted(bus, [BATCHES.name]))
    assert 2 == asyncio.run(read(Selection(offsets=CountSpan(0, 2)))).batches
    for span in ((2, 4), (1, 5)):
        with pytest.raises(ArchiveHole, match=r"rl.batches.v1/0/2 is neither on the log"):
            asyncio.run(read(Selection(offsets=CountSpan(*span))))
    gone = CliRunner().invoke(main, ["replay", "--batches", "2:4", "--to", "x", "--dry-run"])
    assert (2, True) == (gone.exit_code, "has 0 to 1, 4 to 5" in gone.output)


@pytest.mark.processes
def test_a_kill_at_any_point_leaves_whole_objects_and_the_next_run_goes_on(bus, tmp_path):
    """Each point in turn on one archive: what is there is whole, and in the end all of it is."""
    asyncio.run(TrainedLog(bus, TrainerSettings()).publish(8))
    small = f"import {writer.__name__} as m; m.OBJECT_RECORDS = 3\n"
    command = [
        sys.executable, "-c", f"{small}from odradek.infra.app.cli import main; main()",
        "archive", "run", str(tmp_path / "a"), "--json",
    ]  # fmt: skip
    objects = []
    for point in POINTS["archive"]:
        env = {**os.environ, **kafka(bus), "ODRADEK_CRASH_AT": f"{point}:2"}
        killed = subprocess.run(command, env=env, timeout=120, check=False, capture_output=True)
        assert -signal.SIGKILL == killed.returncode, killed.stderr
        report = asyncio.run(validated(archive_at(tmp_path / "a")))
        assert report.whole and not report.unknown
        objects.append(sum(each.objects for each in report.partitions))
    assert [1, 3] == objects
    ended = asyncio.run(archiver(bus, tmp_path / "a", object_records=3).run())
    report = asyncio.run(validated(archive_at(tmp_path / "a")))
    assert (True, 40) == (report.whole, report.records)
    assert sum(each.objects for each in report.partitions) == objects[-1] + ended.objects


async def test_what_cannot_be_archived_is_refused(bus, tmp_path):
    """No place, or no topic at all; a topic that is not there is named beside the others."""
    with pytest.raises(TopicMissing, match=r"rl\.tasks\.v1"):
        await archiver(bus, tmp_path).run()
    await ensure_topics(bus, [(EPISODES.name, EPISODES)])
    ended = await archiver(bus, tmp_path, [EPISODES.name, "no.such.topic"]).run()
    assert ("no.such.topic",) == ended.absent
