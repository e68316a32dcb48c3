"""Replay: the same pointers again, in the same order, on a topic of their own."""

import pytest

from odradek.infra.bus import KafkaAppender, Record, ensure_topics, to_end
from odradek.schemas import codec
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import Batch, Pointer
from odradek.schemas.topics import BATCHES
from odradek.streams.errors import ReplayRefused
from odradek.streams.replay import repeated, replay, span


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


@pytest.mark.parametrize(
    ("text", "offsets"), [("0:40", (0, 40)), ("12:", (12, None)), (":3", (0, 3)), (":", (0, None))]
)
def test_a_span_names_offsets(text, offsets):
    """TO is the first that is left out."""
    assert offsets == span(text)


@pytest.mark.parametrize("text", ["", "7", "a:b", "4:4", "5:3", "-1:4"])
def test_what_is_no_span_is_refused(text):
    """In one line that shows one."""
    with pytest.raises(ReplayRefused, match="FROM:TO"):
        span(text)


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


@pytest.mark.broker
async def test_a_span_of_batches_is_written_again(bus):
    """Same order, same digests; a second time is refused unless it is meant."""
    await ensure_topics(bus)
    appender = await KafkaAppender.connect(bus)
    for number in range(5):
        await appender.append(BATCHES.name, key=f"t{number}", value=codec.encode(batch(number)))
    await appender.aclose()
    done = await replay(bus, "1:4", "rl.batches.again")
    assert (3, 6) == (done.batches, done.episodes)
    again = [one async for one in to_end(bus, "rl.batches.again")]
    assert ["t1", "t2", "t3"] == [one.key for one in again]
    assert list(done.digests) == [batch(number).digest() for number in (1, 2, 3)]
    with pytest.raises(ReplayRefused, match="--append"):
        await replay(bus, "1:4", "rl.batches.again")
    with pytest.raises(ReplayRefused, match="no batch"):
        await replay(bus, "90:", "rl.batches.empty")
    with pytest.raises(ReplayRefused, match="another topic"):
        await replay(bus, "0:1", BATCHES.name)
