"""Batches on a broker that goes away while they are read."""

import asyncio

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaTimeoutError, OffsetOutOfRangeError

from odradek.infra.bus import BusSettings
from odradek.trainer.errors import PositionGone
from odradek.trainer.feed.readers.batch_reader import LogGroups

ON = TopicPartition("rl.batches.v1", 0)


class Away:
    """A consumer at the end of its topic, which answers the first asks with errors."""

    def __init__(self, *errors):
        self.errors = list(errors)

    async def getmany(self, timeout_ms):
        return {}

    async def end_offsets(self, partitions):
        if self.errors:
            raise self.errors.pop(0)
        return {ON: 7}

    async def position(self, on):
        return 7


def groups_over(reader):
    groups = LogGroups(None, BusSettings(), ON.topic, ends=True)
    groups._reader, groups._on = reader, ON
    return groups


@pytest.mark.parametrize("error", [KafkaConnectionError(), KafkaTimeoutError()])
def test_a_run_that_ends_with_its_topic_waits_for_a_broker_that_is_away(error):
    """Nobody knows where the topic ends until it is back."""
    groups = groups_over(Away(error))
    ended = []
    for _ in range(2):
        assert asyncio.run(groups._next(0.0)) is None
        ended.append(groups.ended())
    assert [False, True] == ended


def test_a_position_that_is_gone_ends_the_run():
    """What retention deleted does not come back."""
    reader = Away()

    async def getmany(timeout_ms):
        raise OffsetOutOfRangeError({ON: 3})

    reader.getmany = getmany
    with pytest.raises(PositionGone):
        asyncio.run(groups_over(reader)._next(0.0))
