"""Pointers to records that are late, or on a broker that is away."""

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaTimeoutError, OffsetOutOfRangeError

from odradek.infra.bus import BusSettings
from odradek.schemas import codec
from odradek.schemas.events import Episode, Pointer
from odradek.trainer.errors import MissingRecord, PositionGone
from odradek.trainer.feed.readers import episode_reader
from odradek.trainer.feed.readers.episode_reader import EpisodeReader

ON = TopicPartition("rl.episodes.v1", 0)


class Away:
    """A consumer of one record at offset 0, whose broker says nothing for the first `silent` asks."""

    def __init__(self, value, *, silent=0, end=1):
        self.value, self.silent, self.end = value, silent, end
        self.read = 0
        self._client = self

    async def fetch_all_metadata(self):
        raise KafkaTimeoutError

    def assignment(self):
        return {ON}

    def seek(self, on, offset):
        self.read = offset

    def resume(self, on): ...

    def pause(self, on): ...

    async def beginning_offsets(self, partitions):
        if self.silent > 3:
            self.silent -= 1
            raise KafkaTimeoutError
        return {ON: 0}

    async def end_offsets(self, partitions):
        if self.silent:
            self.silent -= 1
            raise KafkaTimeoutError
        return {ON: self.end}

    async def position(self, on):
        return self.read

    async def getmany(self, *on, timeout_ms):
        if self.silent or self.read >= self.end:
            return {}
        first, self.read = self.read, self.end
        return {ON: [Message(self.value, offset) for offset in range(first, self.end)]}


class Message:
    partition, headers = 0, ()

    def __init__(self, value, offset):
        self.value, self.offset = value, offset


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(episode_reader, "LATEST_S", 0.01)
    monkeypatch.setattr(episode_reader, "PAUSE_S", 0.0)


def reader_of(consumer):
    reader = EpisodeReader(BusSettings(bootstrap_servers="127.0.0.1:1"), ON.topic)
    reader._reader = consumer
    return reader


async def test_an_episode_on_a_broker_that_is_away_is_waited_for(hasty):
    """It is not missing: leaving it out would make the run depend on when a broker restarted."""
    episode = Episode(episode_id="e", task_id="t", agent="a", sample=0, group_size=1)
    value = codec.encode(episode)
    pointer = Pointer(
        episode_id=episode.episode_id, sample=0, reward=1.0, topic=ON.topic, partition=0, offset=0,
        digest=codec.digest(value),
    )  # fmt: skip
    consumer = Away(value, silent=5)
    assert episode.episode_id == (await reader_of(consumer).resolve(pointer)).episode_id
    assert 0 == consumer.silent


async def test_a_record_behind_the_end_of_the_log_is_missing(hasty):
    """The broker answers, and says that nothing stands there."""
    pointer = Pointer(
        episode_id="e", sample=0, reward=1.0, topic=ON.topic, partition=0, offset=7, digest=""
    )
    with pytest.raises(MissingRecord, match="no record at 7"):
        await reader_of(Away(b"")).resolve(pointer)


async def test_records_that_are_read_again_are_counted_once(monkeypatch):
    """Batches may name an episode again and again: none is pushed out by what was kept before."""
    value = codec.encode(Episode(episode_id="e", task_id="t", agent="a", sample=0, group_size=1))
    monkeypatch.setattr(episode_reader, "KEEP_BYTES", 4 * len(value))
    pointer = Pointer(
        episode_id="e", sample=0, reward=1.0, topic=ON.topic, partition=0, offset=0,
        digest=codec.digest(value),
    )  # fmt: skip
    reader = reader_of(Away(value, end=3))
    for _ in range(10):
        assert "e" == (await reader.resolve(pointer)).episode_id
    assert 2 * len(value) == reader._bytes


class Overtaken:
    """Partitions of one record per offset, which retention may shorten while they are read.

    As aiokafka does it: an error is kept until a read that may see its partition raises it.
    """

    def __init__(self, ends):
        self.value = codec.encode(
            Episode(episode_id="e", task_id="t", agent="a", sample=0, group_size=1)
        )
        self.begins = dict.fromkeys(ends, 0)
        self.ends = dict(ends)
        self.at = dict.fromkeys(ends, 0)
        self.flows = set()
        self.errors = {}
        self.asked = 0
        self._client = self

    async def fetch_all_metadata(self):
        raise KafkaTimeoutError

    def assignment(self):
        return set(self.ends)

    def seek(self, on, offset):
        self.at[on] = offset
        self.errors.pop(on, None)

    def resume(self, on):
        self.flows.add(on)

    def pause(self, on):
        self.flows.discard(on)

    async def beginning_offsets(self, partitions):
        self.asked += 1
        return {on: self.begins[on] for on in partitions}

    async def end_offsets(self, partitions):
        return {on: self.ends[on] for on in partitions}

    async def position(self, on):
        return self.at[on]

    def fetch(self, on):
        """What the background task does: an answer for where it stands."""
        if not self.begins[on] <= self.at[on] <= self.ends[on]:
            self.errors[on] = OffsetOutOfRangeError({on: self.at[on]})

    async def getmany(self, *wanted, timeout_ms):
        for on in self.flows:
            self.fetch(on)
        for on in [on for on in self.errors if not wanted or on in wanted]:
            raise self.errors.pop(on)
        for on in self.flows:
            if (at := self.at[on]) < self.ends[on]:
                self.at[on] += 1
                return {on: [Placed(self.value, on.partition, at)]}
        return {}


class Placed(Message):
    def __init__(self, value, partition, offset):
        super().__init__(value, offset)
        self.partition = partition


OTHER = TopicPartition(ON.topic, 1)
GONE, THERE, MISSING = "retention", "e", "missing_record"


async def came_to(reader, consumer, offset, partition=0):
    """The episode that a pointer leads to, or why it does not."""
    pointer = Pointer(
        episode_id="e", sample=0, reward=1.0, topic=ON.topic, partition=partition, offset=offset,
        digest=codec.digest(consumer.value),
    )  # fmt: skip
    try:
        return (await reader.resolve(pointer)).episode_id
    except (PositionGone, MissingRecord) as error:
        return error.reason


OVERTAKEN = {
    "the next that is there": (4, [(4, THERE)]),
    "what is gone, then what is there": (4, [(2, GONE), (4, THERE)]),
    "all that is gone, then all that is there": (
        4, [(1, GONE), (2, GONE), (3, GONE), (4, THERE), (5, THERE)],
    ),
    "what is gone between what is there": (3, [(5, THERE), (2, GONE), (4, THERE), (3, THERE)]),
    "one twice": (4, [(3, GONE), (3, GONE), (5, THERE), (5, THERE)]),
    "everything, and what comes after": (6, [(5, GONE), (2, GONE), (6, MISSING)]),
    "behind the end, then what is there": (2, [(40, MISSING), (2, THERE), (1, GONE)]),
}  # fmt: skip
"""Case: (where retention lets the log begin, pointers and what each must come to)."""


@pytest.mark.parametrize("case", OVERTAKEN)
@pytest.mark.parametrize("first", [0, None], ids=["while it read", "before it began"])
async def test_only_what_retention_has_deleted_is_refused_for_it(hasty, case, first):
    """A reader that was overtaken goes on behind: the rest of the partition is still there."""
    begin, asked = OVERTAKEN[case]
    consumer = Overtaken({ON: 6})
    reader = reader_of(consumer)
    if first is not None:
        assert THERE == await came_to(reader, consumer, first)
    consumer.begins[ON] = begin
    found = [(offset, await came_to(reader, consumer, offset)) for offset, _ in asked]
    assert asked == found


async def test_a_partition_that_was_overtaken_refuses_nothing_of_another(hasty):
    """The error of a fetch that was under way comes up in whichever read is next."""
    consumer = Overtaken({ON: 6, OTHER: 6})
    reader = reader_of(consumer)
    assert THERE == await came_to(reader, consumer, 0)
    consumer.begins[ON] = 4
    consumer.fetch(ON)
    assert THERE == await came_to(reader, consumer, 2, partition=1)
    assert GONE == await came_to(reader, consumer, 3)
    assert THERE == await came_to(reader, consumer, 4)


async def test_retention_that_overtakes_again_and_again_ends_in_what_is_there(hasty):
    """Each time where the log begins is asked anew."""
    consumer = Overtaken({ON: 60})
    reader = reader_of(consumer)
    assert THERE == await came_to(reader, consumer, 0)
    for begin in range(10, 60, 10):
        consumer.begins[ON] = begin
        assert GONE == await came_to(reader, consumer, begin - 1)
        assert THERE == await came_to(reader, consumer, begin)
    assert consumer.asked < 30
