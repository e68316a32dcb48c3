"""A driver over a log in memory: for tests of stages without a broker, and for reading along.

It keeps the rules of the Kafka driver (low-water mark, done mark, Ticks through the log), with a
clock that is moved by hand.
"""

import msgspec

from odradek.infra.bus import MemoryAppender, Record
from odradek.streams.partition import StagePartition
from odradek.streams.stage import Stage


class MemoryDriver:
    """Runs a stage over all partitions of a `MemoryAppender`.

    Args:
        log: The log; its records' timestamps are set by `now` as they are read.
        stage: What folds.
    """

    def __init__(self, log: MemoryAppender, stage: Stage) -> None:
        self.log = log
        self.stage = stage
        self.now = 0.0
        self.partitions: dict[int, StagePartition] = {}
        self.committed: dict[int, tuple[int, int]] = {}
        """Per partition: low-water mark and done mark, as a broker would keep them."""
        self._stamps: dict[tuple[int, int], float] = {}

    async def step(self) -> None:
        """Fold all there is, write what follows, commit; then append Ticks that are due."""
        for record in self.log.on(self.stage.source.name):
            await self._feed(record)
        for partition in list(self.partitions.values()):
            if self.stage.ticks and partition.fold.overdue(self.now):
                tick = partition.tick(self.now)
                await self.log.append(
                    tick.topic,
                    key=None,
                    value=tick.value,
                    headers=tick.headers,
                    partition=tick.partition,
                )

    async def _feed(self, record: Record) -> None:
        partition = self.partitions.get(record.partition)
        if partition is None:
            low, done = self.committed.get(record.partition, (0, 0))
            partition = self.partitions[record.partition] = StagePartition(
                self.stage, record.partition, low, done, partitions=self.log.partitions
            )
        if record.offset < partition.position:
            return
        # Append time is given once: a fold after a crash sees the same times.
        stamp = self._stamps.setdefault((record.partition, record.offset), self.now)
        for out in partition.feed([msgspec.structs.replace(record, timestamp=stamp)]):
            await self.log.append(out.topic, key=out.key, value=out.value, headers=out.headers)
        self.committed[record.partition] = (partition.low_water, partition.position)

    def crash(self) -> None:
        """Lose all state in memory."""
        self.partitions.clear()
