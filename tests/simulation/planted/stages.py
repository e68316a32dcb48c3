"""Faults of the driver, of lanes and of the broker."""

from typing import Any
from unittest.mock import patch

from odradek.infra.bus import Record
from odradek.schemas.events import Tick
from odradek.streams.drivers.kafka import KafkaDriver
from odradek.streams.low_water import LowWater
from odradek.streams.partition import StagePartition
from tests.simulation.cluster import Cluster
from tests.simulation.consumer import SimConsumer
from tests.simulation.planted.patches import Patches


def done_mark_ignored() -> Patches:
    """A new owner writes again what its predecessor had written."""
    made = StagePartition.__init__

    def forgetful(self: StagePartition, *args: Any, **more: Any) -> None:
        made(self, *args, **more)
        self.done = 0

    return [(StagePartition, "__init__", forgetful)]


def commit_before_produce() -> Patches:
    """Produce and commit swapped: the offset stands before the results do."""

    async def swapped(
        self: KafkaDriver, partition: Any, held: Any, out: list[Any], tick: Any
    ) -> None:
        client = held.client
        await client.begin_transaction()
        await self._mark(client, partition, held.lane)
        await client.commit_transaction()
        self._at("after_commit")
        await client.begin_transaction()
        await self._produce(client, partition, out, tick)
        await client.commit_transaction()

    return [(KafkaDriver, "_commit", swapped)]


def commit_outside_the_transaction() -> Patches:
    """Results in a transaction, the offset after it."""

    async def outside(
        self: KafkaDriver, partition: Any, held: Any, out: list[Any], tick: Any
    ) -> None:
        client = held.client
        await client.begin_transaction()
        await self._produce(client, partition, out, tick)
        await client.commit_transaction()
        self._at("after_commit")
        await client.begin_transaction()
        await self._mark(client, partition, held.lane)
        await client.commit_transaction()

    return [(KafkaDriver, "_commit", outside)]


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

    begin = KafkaDriver._begin

    async def unsought(self: KafkaDriver, assigned: Any, clients: Any) -> None:
        with patch.object(self._reader, "seek", lambda *_: None):
            await begin(self, assigned, clients)

    poll = KafkaDriver._poll

    async def dropping(self: KafkaDriver) -> None:
        seek = self._reader.seek
        self._reader.seek = lambda *_: None
        try:
            await poll(self)
        finally:
            self._reader.seek = seek

    return [
        (SimConsumer, "_refresh", from_the_start),
        (KafkaDriver, "_begin", unsought),
        (KafkaDriver, "_poll", dropping),
    ]


def tick_not_read_back() -> Patches:
    """A driver expires what its own clock calls overdue, without a Tick in the log."""
    feed = KafkaDriver._advance

    async def hasty(self: KafkaDriver, partition: Any, held: Any, messages: Any) -> None:
        lane = held.lane
        now = self._clock()
        if self.stage.ticks and held.fenced_at is None and lane.fold.overdue(now):
            record = Record(
                self.stage.source.name, partition.partition, lane.position, None, b"", (), now
            )
            outputs = lane.fold.feed(record, Tick(writer=self.stage.name))
            extra = [lane._write(record, output) for output in outputs]
            original = lane.feed
            lane.feed = lambda records: [*extra, *original(records)]  # type: ignore[method-assign]
            try:
                await feed(self, partition, held, messages)
            finally:
                del lane.feed
            return
        await feed(self, partition, held, messages)

    return [(KafkaDriver, "_advance", hasty)]


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
    """A lane appends a Tick every two minutes, and no sooner."""
    tick = KafkaDriver._tick

    def rarely(self: KafkaDriver, held: Any, now: float, at: float) -> Any:
        told = tick(self, held, now, at)
        if told is not None:
            held.next_tick = at + 120.0
        return told

    return [(KafkaDriver, "_tick", rarely)]
