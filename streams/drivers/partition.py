"""A partition that a Kafka driver owns: folded, ticked and committed."""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any, Final

from aiokafka import TopicPartition

from odradek.infra.bus import FencedWriter, OutgoingRecord, Record
from odradek.schemas.ids import key_text
from odradek.streams.partition import StagePartition

IDLE_COMMIT_S: Final = 1.0
"""Progress without results is committed this often: it saves a new owner's time, no more."""

Commit = Coroutine[Any, Any, None]
"""Waits for a transaction that has begun. Raises PartitionLost or LogUnavailable."""


class KafkaPartition:
    """A partition that we own: the state of its stage, and the writer that proves it.

    Args:
        where: Which partition it is.
        stage_partition: The state of the stage over it.
        writer: Writes as its owner.
    """

    def __init__(
        self, where: TopicPartition, stage_partition: StagePartition, writer: FencedWriter
    ) -> None:
        self.where = where
        self.stage_partition = stage_partition
        self.writer = writer
        self._committed = stage_partition.written
        """The done mark at the last commit."""
        self._committed_at = 0.0
        self._rebalances = 0
        """How many rebalances the partition was kept through."""
        self._proved = 0
        """How many of them were over when the last transaction began that was committed."""
        self._next_tick = 0.0
        self._tick_pause = 1.0
        self._appended_at = 0.0
        """When the broker appended the last record that was read (Unix seconds)."""
        self._read_at = 0.0
        """When that was (monotonic)."""

    @property
    def ahead(self) -> bool:
        """Whether more was read than the last commit says."""
        return self.stage_partition.written > self._committed

    @property
    def unproved(self) -> bool:
        """Whether it was kept through a rebalance, and nothing was committed for it since.

        Another member may have owned it in a generation that we missed.
        """
        return self._proved < self._rebalances

    def keep(self) -> int:
        """A rebalance left it to us: return where reading goes on."""
        self._rebalances += 1
        return self.stage_partition.position

    def advance(self, messages: Sequence[Any], clock: float) -> Commit | None:
        """Fold what was fetched, and begin to commit what follows, if anything.

        Args:
            messages: The next ones of the partition, as aiokafka has them.
            clock: Unix time.
        """
        at = time.monotonic()  # how long ago something was: a clock that is set back never says
        out = self.stage_partition.feed(self._records(messages))
        if messages and self.stage_partition.stage.source.log_append_time:
            self._appended_at, self._read_at = messages[-1].timestamp / 1000, at
        if (tick := self._tick(self._time(clock, at), at)) is not None:
            out.append(tick)
        idle = not self.ahead or at - self._committed_at < IDLE_COMMIT_S
        return None if idle and not out and not self.unproved else self.commit(out)

    def _records(self, messages: Sequence[Any]) -> list[Record]:
        """Messages of our source as records; like `record_of`, for many."""
        topic = self.stage_partition.stage.source.name
        return [
            Record(
                topic,
                message.partition,
                message.offset,
                key_text(message.key),
                message.value,
                message.headers or (),
                message.timestamp / 1000,
            )
            for message in messages
        ]

    def _time(self, clock: float, at: float) -> float:
        """What time it is, at least: by our clock, or by the broker's as we last heard it.

        So a clock that is behind closes nothing late. One that is ahead appends Ticks that change
        nothing: they are judged by their own append time.
        """
        return max(clock, self._appended_at + at - self._read_at) if self._appended_at else clock

    def _tick(self, now: float, at: float) -> OutgoingRecord | None:
        """A Tick if one is due: at most one a second, and ever fewer while they change nothing."""
        partition = self.stage_partition
        if not partition.stage.ticks or at < self._next_tick or partition.position < partition.done:
            return None
        if not partition.fold.overdue(now):
            self._tick_pause = 1.0
            return None
        self._next_tick = at + self._tick_pause
        self._tick_pause = min(self._tick_pause * 2, 30.0)
        return partition.tick(now)

    def commit(self, out: Sequence[OutgoingRecord] = ()) -> Commit:
        """Begin to commit results and both marks in one transaction, without waiting for it.

        What was folded and what is written are of one moment: nothing waits between the two. See
        `FencedWriter` for what a death leaves behind.
        """
        done = self.stage_partition.written
        ended = self.writer.submit(self.where, self.stage_partition.low_water, f"done={done}", *out)
        return self._confirm(ended, done, self._rebalances)

    async def _confirm(self, ended: "asyncio.Future[None]", done: int, rebalances: int) -> None:
        await ended
        self._committed, self._committed_at = done, time.monotonic()
        self._proved = rebalances


def done_mark(metadata: str) -> int:
    """The done mark in a commit's metadata; 0 where it says none."""
    _, _, mark = metadata.partition("done=")
    return int(mark) if mark.isdigit() else 0
