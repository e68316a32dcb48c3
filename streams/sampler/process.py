"""The sampler as a process: both topics are read, mixed, and written in transactions.

One process at a time: starting its producer fences whoever ran before. What it remembers is read
back from the topics: batches and steps up to the committed offsets, and from the mixed topic which
batches were drawn.
"""

import asyncio
from collections.abc import Callable, Container, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from odradek.infra.bus import (
    BusSettings,
    FencedWriter,
    OutgoingRecord,
    Record,
    admin,
    close,
    consumer,
    letter,
    passed_over,
    read_range,
    record_of,
    require_topics,
    running,
    standings,
    start,
)
from odradek.infra.errors import LogUnavailable, PositionLost
from odradek.infra.runtime.crash_points import crash_point
from odradek.schemas import codec
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import Batch, Step
from odradek.schemas.topics import BATCHES, DLQ, MIXED, STEPS
from odradek.streams.errors import TransactionFailed
from odradek.streams.sampler.mixer import BatchHead, MixedHead, Mixer
from odradek.streams.sampler.rules import MixRules

NAME: Final = "sample"
"""Of the consumer group, the transactional id and the CloudEvents source."""
POLL_MS: Final = 100
MAX_RECORDS: Final = 1000
WHOLE_BATCH: Final = codec.reader(Batch)
WHOLE_STEP: Final = codec.reader(Step)
BATCH_HEAD: Final = codec.head_reader(BatchHead)
"""Of batches that a sampler has mixed, so it has read them whole."""
MIXED_HEAD: Final = codec.head_reader(MixedHead)
"""Of what samplers have written."""


class SamplerProcess:
    """Mixes until `stop()`.

    Args:
        bus: Where Kafka is.
        rules: Of the mixer.
        at: Called at each crash point.
    """

    def __init__(
        self, bus: BusSettings, rules: MixRules, *, at: Callable[[str], None] = crash_point
    ) -> None:
        self.bus = bus
        self.mixer = Mixer(rules)
        self.ready = asyncio.Event()
        self._at = at
        self._stop = asyncio.Event()
        self._batches = TopicPartition(bus.topic(BATCHES.name), 0)
        self._steps = TopicPartition(bus.topic(STEPS.name), 0)
        self._committed = (0, 0)

    def stop(self) -> None:
        """End after the transaction in progress."""
        self._stop.set()

    async def run(self) -> None:
        """Mix until `stop()`.

        Raises:
            TransactionFailed: A commit's outcome is open; a restart finds out.
            PartitionLost: Another sampler was started, and writes from now on.
            PositionLost: Retention has deleted what was not mixed.
            BusError: Kafka cannot be reached or used.
        """
        await require_topics(self.bus, [BATCHES.name, STEPS.name, MIXED.name, DLQ.name])
        async with AsyncExitStack() as stack:
            writer = FencedWriter(self.bus, NAME, 0, at=self._at, timeout_s=None)
            # The producer first: once it has started, no transaction of a previous sampler can
            # follow, so what is read now of offsets and of the mixed topic is the last of it.
            stack.push_async_callback(writer.aclose)
            await writer.start()
            reader = consumer(self.bus)
            stack.push_async_callback(close, reader)
            await start(reader, self.bus)
            await self._stand(reader)
            self.ready.set()
            while not self._stop.is_set():
                await self._poll(reader, writer)

    # -- reading back

    async def _stand(self, reader: AIOKafkaConsumer) -> None:
        """Come to where the last sampler was, and begin to read there."""
        wanted = [self._batches, self._steps]
        async with running(admin(self.bus), self.bus) as client:
            standing = await standings(client, reader, self.bus, NAME, wanted)
        (batches, _), (steps, _) = (standing[where] for where in wanted)
        batches, steps, mixed = await self._passed(batches, steps)
        await self._remember(batches, steps, mixed)
        self._committed = batches, steps
        reader.assign(wanted)
        reader.seek(self._batches, batches)
        reader.seek(self._steps, steps)

    async def _passed(self, batches: int, steps: int) -> tuple[int, int, set[int]]:
        """Hear what was written, and how far it and what was committed say that was read.

        With the offsets of the batches that were mixed: a sampler has read those whole.

        Kafka forgets the offsets of a group that has been away for a week, and the batches before
        them must not be fresh a second time.
        """
        mixed = set[int]()
        async for record in read_range(self.bus, MIXED.name, 0):
            batch = _event(record, MIXED_HEAD)
            if batch is None or batch.mixed is None:
                continue
            self.mixer.drew(batch)
            steps = max(steps, batch.mixed.steps)
            if not batch.origin:
                batches = max(batches, batch.mixed.batch + 1)
                mixed.add(batch.mixed.batch)
        return batches, steps, mixed

    async def _remember(self, batches: int, steps: int, mixed: Container[int]) -> None:
        mixer = self.mixer
        async for record in read_range(self.bus, BATCHES.name, 0, end=batches):
            read = BATCH_HEAD if record.offset in mixed else WHOLE_BATCH
            if (batch := _event(record, read)) is not None:
                mixer.remember(record.offset, batch, record.value or b"")
        async for record in read_range(self.bus, STEPS.name, 0, end=steps):
            mixer.recall(record.offset, _event(record, WHOLE_STEP))
        mixer.settle(batches, steps)

    # -- mixing

    async def _poll(self, reader: AIOKafkaConsumer, writer: FencedWriter) -> None:
        try:
            fetched = await reader.getmany(timeout_ms=POLL_MS, max_records=MAX_RECORDS)
        except OffsetOutOfRangeError as error:
            raise PositionLost(f"{NAME}: {error}") from error
        for message in fetched.get(self._steps, ()):
            self.mixer.step(message.offset, _event(record_of(message, self.bus), WHOLE_STEP))
        out = self._mixed(fetched.get(self._batches, ()))
        if (self.mixer.batches, self.mixer.steps) != self._committed:
            await self._commit(writer, out)

    def _mixed(self, messages: Sequence[Any]) -> list[OutgoingRecord]:
        out: list[OutgoingRecord] = []
        for message in messages:
            record = record_of(message, self.bus)
            try:
                batch: Batch = codec.decode(record.value, Batch)
            except InvalidRecord as error:
                self.mixer.skip(record.offset)
                value, headers = letter(record, error.reason, error.detail, consumer=NAME)
                out.append(
                    OutgoingRecord(topic=DLQ.name, key=record.key, value=value, headers=headers)
                )
                continue
            out += [_outgoing(each) for each in self.mixer.batch(record.offset, batch)]
        return out

    async def _commit(self, writer: FencedWriter, out: Sequence[OutgoingRecord]) -> None:
        """Write batches and both offsets together.

        If we die before the commit, nobody sees any of it: the next sampler reads on from the
        offsets of before. It may meet other steps then, and says so in what it writes. After the
        commit it finds the offsets, and the draws on the mixed topic.
        """
        batches, steps = self.mixer.batches, self.mixer.steps
        try:
            await asyncio.gather(
                writer.submit(self._batches, batches, ""),
                writer.submit(self._steps, steps, "", *out),
            )
        except LogUnavailable as error:
            raise TransactionFailed(f"{NAME}: {error}") from error
        self._committed = batches, steps


def _event(record: Record, read: Callable[[bytes | None], Any]) -> Any:
    """The event of a record, or None where it holds none."""
    try:
        return read(record.value)
    except InvalidRecord as error:
        passed_over(record, error)
        return None


def _outgoing(batch: Batch) -> OutgoingRecord:
    mark = batch.mixed
    assert mark is not None
    drawn = f"/{mark.batches}" if batch.origin else ""
    return OutgoingRecord(
        topic=MIXED.name,
        key=batch.task_id,
        value=codec.encode(batch),
        headers=codec.headers(
            batch,
            source=f"/{NAME}",
            subject=batch.task_id,
            event_id=f"{MIXED.name}/{mark.batch}{drawn}",
        ),
    )
