"""Topics that a release wrote come to the same bytes, whatever version reads them."""

from collections import Counter
from pathlib import Path

import pytest

from odradek.schemas import codec
from odradek.schemas.codec import header
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import EpisodeOpened, TurnsEvent
from odradek.schemas.topics import DLQ, REVISIONS, TURNS
from odradek.streams.partition import StagePartition
from odradek.streams.stages.assembler import ASSEMBLE
from odradek.streams.stages.grouper import GROUP
from odradek.streams.stages.intake import intake
from odradek.streams.verify import Conservation
from tests.recorded.topics import TOPICS, digests_of, load, of_topic, partitions

FILES = sorted(Path(__file__).parent.glob("*.jsonl"))
RECORDINGS = {path.name.removesuffix(".jsonl"): load(path) for path in FILES}
WORLDS = [
    pytest.param(world, rows, id=f"{release}-{number}")
    for release, recording in RECORDINGS.items()
    for number, (world, rows) in enumerate(zip(recording.worlds, recording.rows, strict=True))
]


def made(world):
    """What the stages make of a recording: topic, key, value and headers of each record."""
    out = Counter()
    for stage in (intake(), ASSEMBLE, GROUP):
        for number, records in partitions(world, stage.source.name):
            for written in StagePartition(stage, number).feed(records):
                out[written.topic, written.key, written.value, tuple(written.headers)] += 1
    return out


def stood(world):
    """What the stages of the release wrote."""
    found = Counter()
    sources = {"/assemble", "/group"}
    for record in world:
        heads = dict(record.headers)
        letter = record.topic == DLQ.name
        by_a_stage = (
            heads.get("dlq-consumer") in {b"intake", b"assemble", b"group"}
            if letter
            else record.topic == REVISIONS.name
            or (
                record.topic == TURNS.name and (record.value or b"").startswith(b'{"type":"reward"')
            )
            or header(record.headers, "ce_source") in sources
        )
        if by_a_stage and not (record.value or b"").startswith(b'{"type":"tick"'):
            found[record.topic, record.key, record.value, record.headers] += 1
    return found


@pytest.mark.parametrize(("world", "rows"), WORLDS)
def test_the_stages_come_to_the_same_bytes(world, rows):
    """Each record that they wrote then, they write now: value, key and headers."""
    now, then = made(world), stood(world)
    assert Counter() == then - now
    assert Counter() == now - then


@pytest.mark.parametrize(("world", "rows"), WORLDS)
def test_a_trainer_makes_the_same_rows(world, rows):
    """Ids, masks, log probabilities, advantages and versions of every batch."""
    assert rows == digests_of(world)


@pytest.mark.parametrize(("world", "rows"), WORLDS)
def test_what_was_whole_is_whole(world, rows):
    """`odradek verify` finds what it found then: nothing lost, nothing twice."""
    ledger = Conservation()
    for topic in TOPICS:
        for record in of_topic(world, topic.name):
            if topic.name not in {"rl.rewards.v1", "rl.conversations.v1"}:
                ledger.feed(record)
    report = ledger.report()
    assert ([], [], [], []) == tuple(
        report[name] for name in ("lost", "duplicated", "open", "problems")
    )


def kinds(world):
    """Kinds of events on the turns' topic, and what of children and retries there is."""
    for record in of_topic(world, TURNS.name):
        try:
            event = codec.decode(record.value, TurnsEvent)
        except InvalidRecord:
            continue
        yield type(event).__name__
        if isinstance(event, EpisodeOpened):
            yield "child" if event.parent else f"attempt {event.attempt}"


def test_a_recording_holds_what_can_happen():
    """Else it would hold nothing to account."""
    for recording in RECORDINGS.values():
        there = {kind for world in recording.worlds for kind in kinds(world)}
        assert {
            *(kind.__name__ for kind in TurnsEvent.__args__),
            "child",
            "attempt 1",
            "attempt 2",
        } <= there
        assert all(
            any(of_topic(world, topic.name) for world in recording.worlds) for topic in TOPICS
        )
