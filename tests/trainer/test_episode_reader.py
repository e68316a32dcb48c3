"""Pointers to records that are late, or on a broker that is away."""

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaTimeoutError

from odradek.infra.bus import BusSettings
from odradek.schemas import codec
from odradek.schemas.events import Episode, Pointer
from odradek.trainer import episodes
from odradek.trainer.episodes import EpisodeReader
from odradek.trainer.errors import MissingRecord

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

    async def getmany(self, timeout_ms):
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
    monkeypatch.setattr(episodes, "LATEST_S", 0.01)


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
    monkeypatch.setattr(episodes, "KEEP_BYTES", 4 * len(value))
    pointer = Pointer(
        episode_id="e", sample=0, reward=1.0, topic=ON.topic, partition=0, offset=0,
        digest=codec.digest(value),
    )  # fmt: skip
    reader = reader_of(Away(value, end=3))
    for _ in range(10):
        assert "e" == (await reader.resolve(pointer)).episode_id
    assert 2 * len(value) == reader._bytes
