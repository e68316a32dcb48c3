"""Conservation: a whole run closes, and every planted fault is named."""

from typing import Any

import msgspec
import pytest

from odradek.infra.bus import MemoryAppender, Record
from odradek.schemas import codec
from odradek.schemas.events import Batch, Outcome
from odradek.schemas.topics import BATCHES, DLQ, EPISODES, TURNS
from odradek.streams.drivers.memory import MemoryDriver
from odradek.streams.stages.assembler import ASSEMBLE
from odradek.streams.stages.grouper import GROUP
from odradek.streams.verify import Conservation
from tests.support.schemas.event_builders import (
    aborted,
    expected,
    key_of,
    opened,
    reward,
    sealed,
    turn,
)


async def whole_run() -> list[Record]:
    """Two groups of two, a retried sample and a failed one, one late reward, one evaluation."""
    log = MemoryAppender(partitions=2)
    drivers = [MemoryDriver(log, ASSEMBLE), MemoryDriver(log, GROUP)]

    async def write(event: Any, topic: Any = TURNS) -> None:
        await log.append(topic.name, key=key_of(event, topic), value=codec.encode(event))

    for task in ("t1", "t2", "eval"):
        purpose: Any = "eval" if task == "eval" else "train"
        await write(expected(task, purpose=purpose), EPISODES)
        for sample in range(2):
            name = f"{task}-{sample}"
            if name == "t1-0":
                await write(opened("lost", task_id="t1", last_attempt=False))
                await write(turn("lost"))
                await write(aborted("lost", retry=True))
            await write(opened(name, task_id=task, sample=sample, purpose=purpose))
            await write(turn(name))
            await write(reward(name, value=float(sample)))
            failed = {"outcome": Outcome.CANCELLED} if name == "t2-1" else {}
            await write(sealed(name, **failed))
    await write(reward("t1-0"))
    for _ in range(5):
        for driver in drivers:
            await driver.step()
    return log.records


def count(records: list[Record]) -> dict[str, Any]:
    ledger = Conservation()
    for record in records:
        ledger.feed(record)
    return ledger.report()


async def test_a_whole_run_closes():
    """Samples = episodes in batches + exclusions; evaluation is counted apart."""
    report = count(await whole_run())
    assert {
        "tasks": 2,
        "samples": 4,
        "turns": 5,
        "episodes": 2,
        "batches": 2,
        "exclusions": {"cancelled": 1, "too_few": 1},
        "retries": 1,
        "opened": 5,
        "children": {"opened": 0, "held": 0, "refused": 0, "turns": 0},
        "closed": True,
    } == report["conservation"]
    assert (1, 2, True) == tuple(report["eval"][name] for name in ("tasks", "episodes", "closed"))
    assert ([], [], [], []) == tuple(
        report[name] for name in ("lost", "duplicated", "open", "problems")
    )
    assert {} == report["dead_letters"]
    assert {"rewards": 1, "episodes": 1, "unknown": 0} == report["revisions"]
    assert report["closed"]


def first(records, topic, text=b""):
    return next(one for one in records if one.topic == topic.name and text in (one.value or b""))


def without(record):
    return lambda records: [one for one in records if one is not record(records)]


def twice(change):
    def plant(records):
        found = first(records, EPISODES, b'"episode"')
        value = change(found.value)
        return [*records, msgspec.structs.replace(found, offset=99, value=value)]

    return plant


FAULTS = {
    "a batch that never came": (
        without(lambda records: first(records, BATCHES)),
        {"open": ["task t1"]},
    ),
    "an episode that never came": (
        without(lambda records: first(records, EPISODES, b'"episode_id":"lost"')),
        {"open": ["episode lost"]},
    ),
    "a batch written twice": (
        lambda records: [*records, first(records, BATCHES)],
        {"duplicated": ["task t1"]},
    ),
    "an episode written twice, not the same": (
        twice(lambda value: value.replace(b'"n_turns":1', b'"n_turns":2')),
        {"duplicated": ["episode lost"]},
    ),
    "an episode written twice, each with turns of its own": (
        lambda records: [
            *twice(lambda value: value.replace(b"lost/w1/0", b"lost/w1/1"))(records),
            Record(TURNS.name, 0, 99, "lost", codec.encode(turn("lost", seq=1))),
        ],
        {"duplicated": ["episode lost"], "lost": []},
    ),
    "a turn that is in no episode": (
        lambda records: [
            *records,
            Record(TURNS.name, 0, 99, "t1-1", codec.encode(turn("t1-1", seq=7))),
        ],
        {"lost": ["turn t1-1/w1/7"]},
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_planted_fault_is_named(fault):
    """What does not close is listed, and nothing closes then."""
    plant, expected_lists = FAULTS[fault]
    report = count(plant(await whole_run()))
    assert expected_lists == {name: report[name] for name in expected_lists}
    assert not report["closed"]


async def test_a_story_past_its_deadline_is_lost_not_open():
    """The log has gone on for longer than any of its deadlines."""
    records = without(lambda many: first(many, BATCHES))(await whole_run())
    late = records[-1].timestamp + 1000
    report = count([*records, Record(DLQ.name, 0, 9, "x", b"{", (), late)])
    assert ["task t1"] == report["lost"]


async def test_the_same_episode_in_the_same_bytes_is_a_repeat():
    """What an at-least-once driver writes again changes nothing."""
    report = count(twice(bytes)(await whole_run()))
    assert (1, [], True) == (report["repeats"], report["duplicated"], report["closed"])


async def test_a_pointer_that_finds_another_episode_is_a_loss():
    """Offset and digest must lead to the episode that the batch names."""
    records = []
    for record in await whole_run():
        if record.topic == BATCHES.name and b"t1-0" in record.value:
            batch = codec.decode(record.value, Batch)
            moved = msgspec.structs.replace(batch.episodes[0], digest="0" * 64)
            batch = msgspec.structs.replace(batch, episodes=(moved, *batch.episodes[1:]))
            record = msgspec.structs.replace(record, value=codec.encode(batch))
        records.append(record)
    assert ["episode t1-0 of the batch of t1"] == count(records)["lost"]


async def test_a_replayed_batch_counts_for_nothing():
    """Batches with an origin repeat others."""
    records = await whole_run()
    batch = codec.decode(first(records, BATCHES).value, Batch)
    again = msgspec.structs.replace(batch, origin="rl.batches.v1/0/0")
    assert count([*records, Record(BATCHES.name, 0, 9, "t1", codec.encode(again))])["closed"]
