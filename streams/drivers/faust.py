"""The Faust driver: the same folds on `stream.noack()`, at least once.

Faust commits the offset below which every event has been acknowledged. Events are acknowledged
once they stand below the fold's low-water mark and what they caused has been acked by the broker;
so Faust commits exactly the low-water mark. There is no table, no window and no done mark: after a
crash, results since the low-water mark are written again under the same ids, and idempotent
readers (the grouper, `odradek verify`) drop the repeats.

What must be set by hand, and why: isolation read_committed (Faust reads uncommitted under
at_least_once), every name (Faust derives them from module paths), no leader topic.
"""

import asyncio
import contextlib
import logging
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, ClassVar, Final

import faust
from faust.transport.drivers import aiokafka as transport

from odradek.infra.bus import BusSettings, OutgoingRecord, Record, require_topics
from odradek.schemas.ids import key_bytes, key_text
from odradek.schemas.topics import DLQ, MB
from odradek.streams.partition import StagePartition
from odradek.streams.stage import Stage

log = logging.getLogger("odradek")

COMMIT_S: Final = 0.5


class ConsumerThread(transport.AIOKafkaConsumerThread):  # type: ignore[misc] # Faust is untyped
    """Reads only what transactions have committed."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        client = super()._create_worker_consumer(transport)
        client._isolation_level = "read_committed"  # noqa: SLF001 - Faust has no setting for it
        client._fetch_max_wait_ms = 50  # noqa: SLF001 - nor for this
        return client


class Consumer(transport.Consumer):  # type: ignore[misc] # Faust is untyped
    """Faust's consumer on our thread."""

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)


class Transport(transport.Transport):  # type: ignore[misc] # Faust is untyped
    """Faust's transport with our consumer."""

    Consumer = Consumer


class FaustPartition:
    """The state of a stage over a partition, and the events that Faust must not commit yet."""

    def __init__(self, stage_partition: StagePartition) -> None:
        self.stage_partition = stage_partition
        self.waiting: deque[Any] = deque()
        self.next_tick = 0.0
        self.tick_pause = 1.0


class FaustDriver:
    """Runs a stage as a Faust app inside the running loop.

    Args:
        bus: Where Kafka is.
        stage: What folds.
        clock: Unix time; decides only when to append a Tick.
    """

    begins: ClassVar[str] = "earliest"
    """Where a group begins that has committed nothing."""

    def __init__(
        self, bus: BusSettings, stage: Stage, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.bus = bus
        self.stage = stage
        self.ready = asyncio.Event()
        self._clock = clock
        self._stop = asyncio.Event()
        self._partitions: dict[int, FaustPartition] = {}
        self.app: Any = None
        self._sinks: dict[str, Any] = {}

    def stop(self) -> None:
        """End after the record in progress."""
        self._stop.set()

    async def run(self) -> None:
        """Fold until `stop()`. Raises BusError, or what ended Faust."""
        stage = self.stage
        names = {stage.source.name, *(sink.name for sink in stage.sinks), DLQ.name}
        await require_topics(self.bus, sorted(names))
        with tempfile.TemporaryDirectory(prefix="odradek-faust-") as scratch:
            self.app = self._app(names, scratch)
            try:
                await self.app.start()
                await self._until_stopped()
            finally:
                await self.app.stop()

    async def _until_stopped(self) -> None:
        """Wait for `stop()`, or for Faust to give up: then end, and be restarted."""
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), 0.2)
            if self.app.crashed and self.app.crash_reason is not None:
                raise self.app.crash_reason
            await self._ticks()

    def _app(self, names: Iterable[str], scratch: str) -> Any:
        bus, stage = self.bus, self.stage
        app = faust.App(
            bus.group(stage.name),
            broker=[f"kafka://{server}" for server in bus.bootstrap_servers.split(",")],
            broker_credentials=credentials(bus),
            datadir=scratch,
            store="memory://",
            web_enabled=False,
            autodiscover=False,
            processing_guarantee="at_least_once",
            topic_disable_leader=True,
            topic_allow_declare=False,
            topic_partitions=bus.partitions(stage.source),
            consumer_auto_offset_reset=self.begins,
            consumer_max_fetch_size=8 * MB,
            producer_max_request_size=18 * MB,
            producer_compression_type="zstd",
            producer_acks=-1,
            broker_session_timeout=bus.session_timeout_ms / 1000,
            broker_heartbeat_interval=1.0,
            broker_commit_interval=COMMIT_S,
            stream_wait_empty=False,
            stream_recovery_delay=0.0,
            Agent=faust.Agent,
        )
        app.transport = Transport([*app.conf.broker], app, loop=app.loop)
        raw = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw",
               "value_serializer": "raw"}  # fmt: skip
        channels = {name: app.topic(bus.topic(name), **raw) for name in names}
        self._sinks = channels

        async def fold(stream: Any) -> AsyncIterator[None]:
            async for event in stream.noack().events():
                await self._take(event)
                yield

        app.agent(channels[stage.source.name], name=f"odradek.{stage.name}", concurrency=1)(fold)
        app.on_partitions_revoked.connect(self._revoked, weak=False)
        app.on_partitions_assigned.connect(self._assigned, weak=False)
        return app

    async def _revoked(self, *_: Any, **__: Any) -> None:
        """A rebalance takes all partitions and rewinds what comes back: their state goes."""
        self._partitions.clear()

    async def _assigned(self, *_: Any, **__: Any) -> None:
        self.ready.set()

    async def _take(self, event: Any) -> None:
        """Fold one event, write what follows, and acknowledge what is below the low-water mark."""
        message = event.message
        held = self._partitions.get(message.partition)
        if held is None or message.offset < held.stage_partition.position:
            # A first event, or a rewind to the committed offset: fold from there anew.
            stage_partition = StagePartition(
                self.stage,
                message.partition,
                message.offset,
                partitions=self.bus.partitions(self.stage.source),
            )
            held = self._partitions[message.partition] = FaustPartition(stage_partition)
        out = held.stage_partition.feed([self._record(message)])
        held.waiting.append(event)
        await self._send(out)
        # If we die above this line, the events are read again, and written again under the same
        # ids. Below it, what they caused is in the log.
        low = held.stage_partition.low_water
        while held.waiting and held.waiting[0].message.offset < low:
            held.waiting.popleft().ack()

    async def _send(self, out: list[OutgoingRecord]) -> None:
        acks = [
            await self._sinks[record.topic].send(
                key=key_bytes(record.key),
                value=record.value,
                headers=list(record.headers),
                partition=record.partition,
            )
            for record in out
        ]
        for ack in acks:
            await ack

    async def _ticks(self) -> None:
        """Append a Tick where one is due: at most one a second, fewer while nothing changes."""
        now = self._clock()
        for held in list(self._partitions.values()):
            if not self.stage.ticks or now < held.next_tick:
                continue
            if not held.stage_partition.fold.overdue(now):
                held.tick_pause = 1.0
                continue
            held.next_tick = now + held.tick_pause
            held.tick_pause = min(held.tick_pause * 2, 30.0)
            await self._send([held.stage_partition.tick(now)])

    def _record(self, message: Any) -> Record:
        headers = message.headers or ()
        return Record(
            topic=self.bus.bare(message.topic),
            partition=message.partition,
            offset=message.offset,
            key=key_text(message.key),
            value=message.value,
            headers=tuple(headers.items() if isinstance(headers, dict) else headers),
            timestamp=message.timestamp or 0.0,
        )


def credentials(bus: BusSettings) -> Any:
    """How Faust logs in, from the settings that all clients share."""
    connection = bus.connection()
    ssl_context = connection.get("ssl_context")
    if "SASL" in bus.security_protocol:
        return faust.SASLCredentials(
            username=connection["sasl_plain_username"],
            password=connection["sasl_plain_password"],
            mechanism=bus.sasl_mechanism,
            ssl_context=ssl_context,
        )
    return faust.SSLCredentials(ssl_context) if ssl_context is not None else None
