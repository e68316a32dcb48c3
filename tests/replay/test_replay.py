"""Replay: the same pointers again, in the same order, on a topic of their own."""

import importlib
import json

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete
from click.testing import CliRunner

from odradek.infra.app.cli.run import replay as verb
from odradek.infra.bus import KafkaAppender, Record, admin, ensure_topics, running, to_end
from odradek.infra.errors import LogUnavailable
from odradek.schemas import codec
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import (
    Batch,
    BatchUse,
    Episode,
    Pointer,
    Reward,
    Sequence,
    Step,
    VersionSpan,
)
from odradek.schemas.topics import BATCHES, EPISODES, REVISIONS, STEPS
from odradek.streams.errors import HistoryGone, HistoryUnknown, ReplayRefused
from odradek.streams.history import CountSpan, RewardSpan, Selection
from odradek.streams.replay import repeated, replay


def batch(number: int) -> Batch:
    """A group of two."""
    return Batch(
        task_id=f"t{number}",
        group_size=2,
        episodes=tuple(
            Pointer(
                episode_id=f"e{number}-{sample}",
                sample=sample,
                topic="rl.episodes.v1",
                partition=0,
                offset=2 * number + sample,
                digest=f"{number}{sample}" * 32,
                reward=float(sample),
            )
            for sample in range(2)
        ),
    )


def record(event: Batch, offset: int = 7) -> Record:
    return Record(BATCHES.name, 0, offset, event.task_id, codec.encode(event))


def span(text: str) -> Selection:
    return Selection(offsets=CountSpan.parse(text))


@pytest.mark.parametrize(
    ("text", "offsets"),
    [("0:40", (0, 40)), ("12:", (12, None)), (":3", (None, 3)), (":", (None, None))],
)
def test_a_span_names_offsets(text, offsets):
    """TO is the first that is left out."""
    assert CountSpan(*offsets) == CountSpan.parse(text)


@pytest.mark.parametrize("text", ["", "7", "a:b", "4:4", "5:3", "-1:4", ":0"])
def test_what_is_no_span_is_refused(text):
    """In one line that shows one."""
    with pytest.raises(ReplayRefused, match="FROM:TO"):
        CountSpan.parse(text)


def test_a_replayed_batch_has_the_same_digest_and_names_its_origin():
    """However often it is replayed, the origin stays the first."""
    once = repeated(record(batch(1)))
    twice = repeated(record(once, offset=99))
    assert "rl.batches.v1/0/7" == once.origin == twice.origin
    assert batch(1).digest() == once.digest()
    assert batch(1).episodes == once.episodes


def test_the_digest_tells_order_and_content():
    """Other pointers, or the same in another order, are another batch."""
    one = batch(1)
    turned = Batch(task_id="t1", group_size=2, episodes=one.episodes[::-1])
    assert 3 == len({one.digest(), turned.digest(), batch(2).digest()})


def test_a_record_that_is_no_batch_is_refused():
    """Nothing is guessed."""
    with pytest.raises(InvalidRecord):
        repeated(Record(BATCHES.name, 0, 0, "x", b"{}"))


async def write(bus, topic, *events, key="x"):
    """Events onto a topic; where they stand."""
    appender = await KafkaAppender.connect(bus)
    try:
        return [await appender.append(topic, key=key, value=codec.encode(one)) for one in events]
    finally:
        await appender.aclose()


async def test_batches_that_readers_do_not_see_are_told_with_what_to_do(monkeypatch):
    """All are committed, so a second replay would write them twice."""
    module = importlib.import_module("odradek.streams.replay")
    monkeypatch.setattr(module, "SEEN_S", 0.0)

    async def nothing(*_):
        return 0

    monkeypatch.setattr(module, "_end", nothing)
    with pytest.raises(LogUnavailable, match=r"committed to again.*do not replay again"):
        await module._await_end(None, "again", 3)


@pytest.mark.broker
async def test_a_span_of_batches_is_written_again(bus):
    """Same order, same digests; a second time is refused unless it is meant."""
    await ensure_topics(bus)
    await write(bus, BATCHES.name, *map(batch, range(5)))
    done = await replay(bus, span("1:4"), "rl.batches.again")
    assert (3, 6) == (done.batches, done.episodes)
    again = [one async for one in to_end(bus, "rl.batches.again")]
    assert ["t1", "t2", "t3"] == [one.key for one in again]
    assert list(done.digests) == [batch(number).digest() for number in (1, 2, 3)]
    with pytest.raises(ReplayRefused, match="--append"):
        await replay(bus, span("1:4"), "rl.batches.again")
    with pytest.raises(ReplayRefused, match="no batch"):
        await replay(bus, span("90:"), "rl.batches.empty")
    with pytest.raises(ReplayRefused, match="another topic"):
        await replay(bus, span("0:1"), BATCHES.name)
    more = await replay(bus, span("4:"), "rl.batches.again", append=True)
    thrice = await replay(bus, span(":"), "rl.batches.thrice", source="rl.batches.again")
    assert (*done.digests, *more.digests) == thrice.digests
    assert "rl.batches.v1/0/1" == codec.decode(again[0].value, Batch).origin


@pytest.mark.broker
async def test_a_dry_run_counts_and_writes_nothing(bus):
    """Not even the topic is made."""
    await ensure_topics(bus)
    await write(bus, BATCHES.name, *map(batch, range(5)))
    seen = []
    done = await replay(
        bus, span("1:4"), "rl.batches.dry", dry_run=True,
        looking=lambda done, of: seen.append((done, of)),
    )  # fmt: skip
    assert (3, 6, 3, True) == (done.batches, done.episodes, done.read, done.dry)
    assert [(1, 3), (2, 3), (3, 3)] == seen
    async with running(admin(bus), bus) as client:
        assert bus.topic("rl.batches.dry") not in await client.list_topics()


async def played(bus, n):
    """Batches of one episode each, with versions and components; a step for every two of them."""
    batches = []
    for number in range(n):
        episode = Episode(
            episode_id=f"e{number}", task_id="x", agent="a", sample=0, group_size=1,
            components={"right": number / 10},
            sequences=(Sequence(ids=bytes(12), versions=(VersionSpan(number // 2, 0, 3),)),),
        )  # fmt: skip
        (at,) = await write(bus, EPISODES.name, episode)
        pointer = Pointer(
            episode_id=f"e{number}", sample=0, topic=EPISODES.name, partition=at.partition,
            offset=at.offset, digest=codec.digest(codec.encode(episode)), reward=0.5,
        )  # fmt: skip
        batches.append(Batch(task_id=f"t{number}", group_size=1, episodes=(pointer,)))
    await write(bus, BATCHES.name, *batches)
    steps = [
        Step(
            run="main", incarnation=1, step=number + 1, position=2 * number + 2,
            used=(BatchUse(offset=2 * number, rows=1), BatchUse(offset=2 * number + 1, rows=1)),
        )
        for number in range(n // 2)
    ]  # fmt: skip
    await write(bus, STEPS.name, *steps, key="main")
    return batches


@pytest.mark.broker
async def test_batches_are_chosen_by_what_is_known_of_them(bus):
    """By steps, versions, rewards of components, tasks or times, in the order of their topic."""
    await ensure_topics(bus)
    batches = await played(bus, 8)
    for selection, taken in (
        (Selection(steps=CountSpan(2, 4)), [2, 3, 4, 5]),
        (Selection(steps=CountSpan(3, None)), [4, 5, 6, 7]),
        (Selection(versions=CountSpan(1, 3)), [2, 3, 4, 5]),
        (Selection(reward=RewardSpan(0.25, 0.5, "right")), [3, 4, 5]),
        (Selection(reward=RewardSpan(0.4, 0.6), tasks=("t1", "t7")), [1, 7]),
        (Selection(since=0.0, offsets=CountSpan(None, 2)), [0, 1]),
    ):
        done = await replay(bus, selection, "again", dry_run=True)
        assert [batches[n].digest() for n in taken] == list(done.digests)
    await replay(bus, Selection(steps=CountSpan(2, 4), tasks=("t3", "t5", "t6")), "again")
    assert ["t3", "t5"] == [one.key async for one in to_end(bus, "again")]


@pytest.mark.broker
async def test_a_step_that_was_not_made_is_named(bus):
    """With the last one that was."""
    await ensure_topics(bus)
    await played(bus, 4)
    with pytest.raises(HistoryUnknown, match=r"no step 3: its last one is 2"):
        await replay(bus, Selection(steps=CountSpan(2, 4)), "again")
    with pytest.raises(HistoryUnknown, match="no step of run 'other'"):
        await replay(bus, Selection(steps=CountSpan(2, 4), run="other"), "again")
    with pytest.raises(ReplayRefused, match="leave out --from"):
        await replay(bus, Selection(steps=CountSpan(2, 3)), "again", source="elsewhere")


@pytest.mark.broker
@pytest.mark.parametrize(
    "selection", [span("1:"), Selection(versions=CountSpan(0, 9))], ids=["batches", "episodes"]
)
async def test_an_episode_that_retention_has_deleted_is_named(bus, selection):
    """Before anything is written; or its batch is left out whole, and counted aloud."""
    await ensure_topics(bus)
    batches = await played(bus, 4)
    at = batches[2].episodes[0]
    on = TopicPartition(bus.topic(EPISODES.name), at.partition)
    async with running(admin(bus), bus) as client:
        await client.delete_records({on: RecordsToDelete(at.offset + 1)})
    with pytest.raises(HistoryGone, match=r"episode e\d of rl.batches.v1/0/\d is gone"):
        await replay(bus, selection, "again")
    done = await replay(bus, selection, "again", skip_missing=True)
    assert (batches[3].digest(),) == done.digests
    assert "episode e2 is gone" in done.left_out[-1]
    assert 1 == len([one async for one in to_end(bus, "again")])


@pytest.mark.broker
async def test_a_batch_that_retention_has_deleted_is_named(bus):
    """A span that begins before the log does is never a shorter one in silence."""
    await ensure_topics(bus)
    await write(bus, BATCHES.name, *map(batch, range(5)))
    async with running(admin(bus), bus) as client:
        on = TopicPartition(bus.topic(BATCHES.name), 0)
        await client.delete_records({on: RecordsToDelete(2)})
    with pytest.raises(HistoryGone, match="begins at 2"):
        await replay(bus, span("0:4"), "again")
    assert 2 == (await replay(bus, span(":4"), "again")).batches


def test_the_verb_counts_and_writes(broker, monkeypatch):
    """One line for people, JSON for machines, and a mistake is a line as well."""
    import asyncio
    from uuid import uuid4

    from odradek.infra.bus import BusSettings

    prefix = f"t{uuid4().hex[:10]}."
    monkeypatch.setenv("ODRADEK_KAFKA_BOOTSTRAP_SERVERS", broker)
    monkeypatch.setenv("ODRADEK_TOPIC_PREFIX", prefix)
    bus = BusSettings()

    async def prepare():
        await ensure_topics(bus)
        await write(bus, BATCHES.name, *map(batch, range(5)))

    asyncio.run(prepare())

    def call(*words):
        return CliRunner().invoke(verb.command, [*words, "--to", "again"])

    dry = call("--batches", "1:4", "--dry-run")
    assert "3 batches with 6 episodes would be written to again; 3 batches were read\n" == (
        dry.stdout
    )
    done = json.loads(call("--task", "t2", "--task", "t4", "--pace", "1000", "--json").stdout)
    assert [batch(2).digest(), batch(4).digest()] == done["digests"]
    assert (2, 4, 5, False) == tuple(done[name] for name in ("batches", "episodes", "read", "dry"))
    assert "say which batches" in call().output


async def judged_late(bus, *values):
    """A batch of two on the log, and late rewards of its first episode."""
    await ensure_topics(bus)
    runs = [
        Episode(
            episode_id=f"e{sample}", task_id="t1", agent="a", sample=sample, group_size=2,
            reward=float(sample), components={"reward": float(sample)},
        )
        for sample in range(2)
    ]  # fmt: skip
    places = await write(bus, EPISODES.name, *runs, key="t1")
    pointers = tuple(
        Pointer(
            episode_id=run.episode_id, sample=run.sample, topic=EPISODES.name,
            partition=at.partition, offset=at.offset, digest=codec.digest(codec.encode(run)),
            reward=run.reward,
        )
        for run, at in zip(runs, places, strict=True)
    )  # fmt: skip
    await write(bus, BATCHES.name, Batch(task_id="t1", group_size=2, episodes=pointers), batch(2))
    late = [Reward(episode_id="e0", component="reward", value=v, source="s") for v in values]
    await write(bus, REVISIONS.name, *late)


@pytest.mark.broker
@pytest.mark.parametrize(
    ("revision", "rewards", "marked"),
    [("first", [0.0, 1.0], 0), ("0", [0.0, 1.0], 0), ("1", [5.0, 1.0], 1), ("latest", [7.0, 1.0], 2)],
)  # fmt: skip
async def test_a_batch_is_written_with_the_rewards_of_a_revision(bus, revision, rewards, marked):
    """Its record says which, and nothing of what stood there is changed."""
    await judged_late(bus, 5.0, 7.0)
    done = await replay(bus, span("0:"), "again", revision=revision)
    first, second = [codec.decode(record.value, Batch) async for record in to_end(bus, "again")]
    assert (rewards, marked) == ([p.reward for p in first.episodes], first.revision)
    assert (int(marked > 0), 0) == (done.revised, second.revision)
    assert [first.digest(), second.digest()] == list(done.digests)
    plain = [codec.decode(record.value, Batch) async for record in to_end(bus, BATCHES.name)]
    assert [0.0, 1.0] == [pointer.reward for pointer in plain[0].episodes]


@pytest.mark.broker
@pytest.mark.parametrize("revision", ["3", "-1", "newest", "1.5", ""])
async def test_a_revision_that_is_none_is_refused(bus, revision):
    """In one line that says which there are."""
    await judged_late(bus, 5.0, 7.0)
    with pytest.raises(ReplayRefused, match="holds 0 to 2"):
        await replay(bus, span("0:"), "again", revision=revision)
