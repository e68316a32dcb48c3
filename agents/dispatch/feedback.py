"""Consume batches and steps to release credit."""

from collections.abc import AsyncIterator, Callable

from aiokafka import AIOKafkaConsumer, TopicPartition

from odradek.agents.dispatch.credit import Credit
from odradek.infra.bus import (
    BusSettings,
    Positions,
    Record,
    Start,
    at_beginning,
    at_end,
    passed_over,
)
from odradek.schemas import codec
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import Batch, Step
from odradek.schemas.topics import BATCHES, MIXED


class Feedback:
    """Feeds the credit from `rl.batches.v1` and `rl.steps.v1`.

    Args:
        credit: Counts groups that are out.
        done: Called with the task ids of groups that a step has passed.
        closed: Called with each batch, before what it passes is done.
    """

    def __init__(
        self,
        credit: Credit,
        done: Callable[[list[str]], None],
        closed: Callable[[Batch], None] = lambda _: None,
    ) -> None:
        self._credit = credit
        self._done = done
        self._closed = closed
        self.batches = 0
        """Where reading of batches goes on."""

    def start(self, bus: BusSettings) -> Start:
        """Where reading begins.

        New batches from here on: older ones are read where a partition is taken over. All steps:
        they are few, and only their last position counts.
        """

        async def begin(reader: AIOKafkaConsumer, partitions: list[TopicPartition]) -> Positions:
            batches = [where for where in partitions if bus.bare(where.topic) == BATCHES.name]
            ends = await at_end(reader, batches)
            self.batches = ends[batches[0]]
            return {**await at_beginning(reader, partitions), **ends}

        return begin

    async def listen(self, records: AsyncIterator[Record]) -> None:
        """Hear all that comes, for ever."""
        async for record in records:
            self.hear(record)

    def hear(self, record: Record) -> None:
        """Release credit for a record; other records than batches and steps are ignored."""
        try:
            if record.topic == BATCHES.name:
                batch = codec.decode(record.value, Batch)
                self.batches = max(self.batches, record.offset + 1)
                self._closed(batch)
                passed = self._credit.batch(record.offset, batch.task_id)
            else:
                step = codec.decode(record.value, Step)
                passed = [] if step.sampled_by else self._credit.step(_passed(step))
        except InvalidRecord as error:
            passed_over(record, error)
            return
        if passed:
            self._done(passed)


def _passed(step: Step) -> int:
    """The offset on `rl.batches.v1` behind what a step has passed; 0 where it is of a replay.

    Of a mixed topic only fresh batches count: what was drawn again gave its credit back before.
    """
    offsets = {BATCHES.name: step.position, MIXED.name: step.source}
    return offsets.get(step.topic, 0)
