"""Faults of the driver, of partitions and of the broker."""

from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

from odradek.infra.bus import PartitionGroup, Record
from odradek.infra.errors import PartitionLost
from odradek.schemas.events import Tick
from odradek.streams.drivers import kafka
from odradek.streams.drivers.kafka import KafkaDriver
from odradek.streams.drivers.partition import KafkaPartition
from odradek.streams.low_water import LowWater
from odradek.streams.partition import StagePartition
from tests.simulation.cluster import Cluster
from tests.simulation.consumer import SimConsumer
from tests.simulation.planted.patches import Patches
from tests.support.streams.split_commits import OffsetsFirst, RecordsFirst


def done_mark_ignored() -> Patches:
    """A new owner writes again what its predecessor had written."""
    made = StagePartition.__init__

    def forgetful(self: StagePartition, *args: Any, **more: Any) -> None:
        made(self, *args, **more)
        self.done = 0

    return [(StagePartition, "__init__", forgetful)]


def commit_before_produce() -> Patches:
    """Produce and commit swapped: the offset stands before the results do."""
    return [(kafka, "FencedWriter", OffsetsFirst)]


def commit_outside_the_transaction() -> Patches:
    """Results in a transaction, the offset after it."""
    return [(kafka, "FencedWriter", RecordsFirst)]


def no_seek_after_assignment() -> Patches:
    """A new owner reads on from wherever its consumer happens to stand, from the start if nowhere.

    The records that the consumer handed out while the partition was being taken over are gone.
    """
    refresh = SimConsumer._refresh

    async def from_the_start(self: SimConsumer, assigned: list[Any]) -> None:
        await refresh(self, assigned)
        for where in list(self._missing):
            self._positions[where] = 0
        self._missing.clear()

    begin, enter = PartitionGroup._begin, PartitionGroup._enter

    def unpaused(self: PartitionGroup, number: int) -> None:
        with ExitStack() as stack:
            for name in ("seek", "pause") if isinstance(self._owner, KafkaDriver) else ():
                stack.enter_context(patch.object(self._reader, name, lambda *_: None))
            begin(self, number)

    def unsought(self: PartitionGroup, number: int, position: int) -> None:
        with ExitStack() as stack:
            if isinstance(self._owner, KafkaDriver):
                stack.enter_context(patch.object(self._reader, "seek", lambda *_: None))
            enter(self, number, position)

    return [
        (SimConsumer, "_refresh", from_the_start),
        (PartitionGroup, "_begin", unpaused),
        (PartitionGroup, "_enter", unsought),
        (KafkaDriver, "_put_back", lambda _: None),
    ]


def fenced_fold_goes_on() -> Patches:
    """A partition that another member has had meanwhile goes on with what was folded before.

    Too rare to be met by chance: `test_regressions` makes a world for it.
    """
    fenced, take = KafkaDriver._fenced, KafkaDriver.take
    stale: dict[Any, StagePartition] = {}

    def noting(self: KafkaDriver, owned: KafkaPartition, error: PartitionLost) -> None:
        number = owned.where.partition
        if owned.unproved and self._partitions.get(number) is owned:
            stale[self, number] = owned.stage_partition
        fenced(self, owned, error)

    async def going_on(self: KafkaDriver, number: int) -> int:
        position = await take(self, number)
        partition = stale.pop((self, number), None)
        if partition is None:
            return position
        self._partitions[number].stage_partition = partition
        return partition.position

    return [(KafkaDriver, "_fenced", noting), (KafkaDriver, "take", going_on)]


def tick_not_read_back() -> Patches:
    """A driver expires what its own clock calls overdue, without a Tick in the log."""
    advance = KafkaPartition.advance

    def hasty(self: KafkaPartition, messages: Any, clock: float) -> Any:
        partition = self.stage_partition
        stage = partition.stage
        if not stage.ticks or not partition.fold.overdue(clock):
            return advance(self, messages, clock)
        record = Record(
            stage.source.name, self.where.partition, partition.position, None, b"", (), clock
        )
        outputs = partition.fold.feed(record, Tick(writer=stage.name))
        extra = [partition._write(record, output) for output in outputs]
        original = partition.feed
        partition.feed = lambda records: [*extra, *original(records)]  # type: ignore[method-assign]
        try:
            return advance(self, messages, clock)
        finally:
            del partition.feed

    return [(KafkaPartition, "advance", hasty)]


def zombies_not_fenced() -> Patches:
    """A producer of another epoch goes on as if nobody had taken its partition over."""
    current, end = Cluster._current, Cluster.end_transaction

    def lenient(self: Cluster, name: str, epoch: int) -> Any:
        return current(self, name, max(epoch, self.writers[name].epoch))

    def ended(self: Cluster, name: str, epoch: int, *, commit: bool) -> None:
        end(self, name, max(epoch, self.writers[name].epoch), commit=commit)

    return [(Cluster, "_current", lenient), (Cluster, "end_transaction", ended)]


def low_water_ignored() -> Patches:
    """What is committed is where reading stands, as if nothing were open."""
    return [(StagePartition, "low_water", property(lambda self: self.position))]


def repeats_not_held() -> Patches:
    """A closed story whose opening was repeated does not hold the low-water mark."""
    return [(LowWater, "closed", lambda *_: None)]


def ticks_held_back() -> Patches:
    """A partition appends a Tick every two minutes, and no sooner."""
    tick = KafkaPartition._tick

    def rarely(self: KafkaPartition, now: float, at: float) -> Any:
        due = tick(self, now, at)
        if due is not None:
            self._next_tick = at + 120.0
        return due

    return [(KafkaPartition, "_tick", rarely)]
