"""Consume batches and steps to release credit."""

from collections.abc import Callable
from typing import Any, Final

from odradek.agents.dispatch.credit import Credit
from odradek.infra.bus import BusSettings, Record, partitions_of, passed_over, record_of
from odradek.schemas import codec
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import Batch, Step
from odradek.schemas.topics import BATCHES, STEPS

POLL_MS: Final = 100


class Feedback:
    """Feeds the credit from `rl.batches.v1` and `rl.steps.v1`.

    Args:
        credit: Counts groups that are out.
        done: Called with the task ids of groups that a step has passed.
    """

    def __init__(self, credit: Credit, done: Callable[[list[str]], None]) -> None:
        self._credit = credit
        self._done = done
        self.batches = 0
        """Where reading of batches goes on."""

    async def begin(self, closed: Any, bus: BusSettings) -> None:
        """Put a consumer on its first positions.

        New batches from here on: older ones are read where a partition is taken over. All steps:
        they are few, and only their last position counts.
        """
        batches = await partitions_of(closed, bus.topic(BATCHES.name))
        steps = await partitions_of(closed, bus.topic(STEPS.name))
        closed.assign([*batches, *steps])
        ends = await closed.end_offsets(batches)
        self.batches = ends[batches[0]]
        closed.seek(batches[0], self.batches)
        await closed.seek_to_beginning(*steps)

    async def listen(self, closed: Any, bus: BusSettings) -> None:
        """Hear all that comes, for ever."""
        while True:
            for messages in (await closed.getmany(timeout_ms=POLL_MS)).values():
                for message in messages:
                    self.hear(record_of(message, bus))

    def hear(self, record: Record) -> None:
        """Release credit for a record; other records than batches and steps are ignored."""
        try:
            if record.topic == BATCHES.name:
                batch = codec.decode(record.value, Batch)
                self.batches = max(self.batches, record.offset + 1)
                passed = self._credit.batch(record.offset, batch.task_id)
            else:
                step = codec.decode(record.value, Step)
                passed = self._credit.step(step.position) if step.topic == BATCHES.name else []
        except InvalidRecord as error:
            passed_over(record, error)
            return
        if passed:
            self._done(passed)
