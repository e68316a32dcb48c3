"""aiokafka clients with the settings that our guarantees need."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, Protocol

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    UnknownTopicOrPartitionError,
)

from odradek.infra.bus import patches
from odradek.infra.bus.settings import BusSettings
from odradek.infra.errors import (
    BusError,
    KafkaRefused,
    KafkaUnreachable,
    PositionLost,
    TopicMissing,
)
from odradek.schemas.topics import MB

TRANSACTION_TIMEOUT_MS: Final = 10_000
"""An open transaction stalls every read_committed reader, so a dead writer's ends soon."""


log = logging.getLogger("odradek")

HEARTBEAT_MS: Final = 300
"""How often a member of a group shows that it lives, and hears of the others."""
COORDINATOR_S: Final = 30.0
"""How long a group's coordinator may take to be found again."""
MAX_POLL_MS: Final = 300_000
"""How long a member of a group may go without polling. Nothing slow may stand between two polls:
the group would give its partitions away, refuse its commits, and hand the same records out again.
"""
CLOSE_S: Final = 5.0
"""How long a client may take to end in good order."""
LOOK_S: Final = 5.0
"""How long the broker may take to say whether a topic is there."""

patches.mend()


class KafkaClient(Protocol):
    """The arguments of all aiokafka clients."""

    async def start(self) -> None:
        """Connect."""
        ...


def producer(
    bus: BusSettings,
    *,
    linger_ms: int = 0,
    transactional_id: str | None = None,
    largest: int = 18 * MB,
) -> AIOKafkaProducer:
    """An idempotent producer, not started.

    Args:
        bus: Where Kafka is.
        linger_ms: 0 where somebody waits for the ack, 5 for bulk.
        transactional_id: Without prefix; makes the producer transactional. One per (group, input
            partition): starting it fences whoever held it before.
        largest: Bytes of the largest record before it is packed; brokers count the packed bytes.
    """
    extra: dict[str, Any] = {}
    if transactional_id is not None:
        extra["transactional_id"] = bus.group(transactional_id)
        extra["transaction_timeout_ms"] = TRANSACTION_TIMEOUT_MS
    return AIOKafkaProducer(
        **bus.connection(),
        enable_idempotence=True,
        acks="all",
        linger_ms=linger_ms,
        compression_type="zstd",
        max_batch_size=512 * 1024,
        max_request_size=largest,
        request_timeout_ms=30_000,
        metadata_max_age_ms=60_000,
        **extra,
    )


def consumer(
    bus: BusSettings,
    *topics: str,
    group: str | None = None,
    instance: str | None = None,
    committed: bool = True,
    max_poll_records: int | None = None,
    sticky: bool = False,
    partition_bytes: int = 8 * MB,
) -> AIOKafkaConsumer:
    """A consumer that never skips silently, not started.

    Args:
        bus: Where Kafka is.
        topics: Names without prefix; none for a consumer that will `assign()`.
        group: Without prefix; none for a reader on its own.
        instance: Static membership: the same name comes back to the same partitions.
        committed: Read only what transactions have committed.
        max_poll_records: Most records of one fetch.
        sticky: In a rebalance, leave as many partitions as possible where they are.
        partition_bytes: Most bytes of one fetch of a partition.
    """
    extra: dict[str, Any] = {}
    if sticky:
        # The assignor keeps its memory on its class: each consumer gets a class of its own.
        kind = type("Sticky", (StickyPartitionAssignor,), {})
        extra["partition_assignment_strategy"] = (kind,)
    if group is not None:
        extra["group_id"] = bus.group(group)
        if instance is not None:
            extra["group_instance_id"] = bus.group(instance)
    return AIOKafkaConsumer(
        *(bus.topic(name) for name in topics),
        **bus.connection(),
        auto_offset_reset="none",
        enable_auto_commit=False,
        isolation_level="read_committed" if committed else "read_uncommitted",
        session_timeout_ms=bus.session_timeout_ms,
        max_poll_interval_ms=MAX_POLL_MS,
        # Members hear of a rebalance by it, so this is how long a partition that was left waits.
        heartbeat_interval_ms=min(HEARTBEAT_MS, bus.session_timeout_ms // 3),
        fetch_max_wait_ms=50,
        max_partition_fetch_bytes=partition_bytes,
        fetch_max_bytes=64 * MB,
        max_poll_records=max_poll_records,
        metadata_max_age_ms=30_000,
        **extra,
    )


async def start(client: KafkaClient, bus: BusSettings, *, timeout_s: float = 30.0) -> None:
    """Start a client; an error is reported in one line.

    Raises KafkaUnreachable, KafkaRefused or BusError; the client is closed then.
    """
    try:
        await _open(client, timeout_s)
    except (KafkaConnectionError, KafkaTimeoutError, TimeoutError, OSError) as error:
        raise KafkaUnreachable(_unreachable(bus)) from error
    except (AuthenticationFailedError, AuthenticationMethodNotSupported) as error:
        raise KafkaRefused(f"Kafka at {bus.bootstrap_servers} refuses us: {error}") from error
    except KafkaError as error:
        raise BusError(f"Kafka at {bus.bootstrap_servers}: {error!r}") from error


async def _open(client: KafkaClient, timeout_s: float) -> None:
    async with AsyncExitStack() as failed:
        # Cancelled as well: half a client would linger, and say so later.
        failed.push_async_callback(close, client)
        async with asyncio.timeout(timeout_s):
            await client.start()
        failed.pop_all()


def _unreachable(bus: BusSettings) -> str:
    # aiokafka tells a refused login from a dead address only in its own log.
    if bus.security_protocol != "PLAINTEXT":
        return (
            f"no Kafka at {bus.bootstrap_servers} lets us in: it is not running, or refuses our "
            f"{bus.security_protocol} login or certificate (ODRADEK_KAFKA_SASL_*, _SSL_*)"
        )
    return (
        f"no Kafka answers at {bus.bootstrap_servers}: is it running? "
        "(`odradek kafka start` starts a local one)"
    )


async def close(client: Any) -> None:
    """Stop a client: in good order where the broker answers, else by force after `CLOSE_S`.

    aiokafka's own stop waits for the broker, for ever if need be: an idempotent producer never
    gives a batch up, and a member of a group says goodbye. A process that is to end would hang.
    Records that are dropped here were never acknowledged to anybody. Nor does it raise: the error
    that ended a process must not be replaced by one of its shutdown (the stop of a consumer lets a
    CancelledError out when its connections are gone).
    """
    stop = client.close if isinstance(client, AIOKafkaAdminClient) else client.stop
    if await _within(stop(), CLOSE_S):
        return
    sender = getattr(getattr(client, "_sender", None), "sender_task", None)
    if sender is not None:
        sender.cancel()
    connections = getattr(client, "client", None) or getattr(client, "_client", None)
    if connections is not None:
        await _within(connections.close(), CLOSE_S)


async def _within(work: Awaitable[Any], timeout_s: float) -> bool:
    """Whether something ended in time, well or not; it is cancelled else."""
    task = asyncio.ensure_future(work)
    done, _ = await asyncio.wait({task}, timeout=timeout_s)
    if not done:
        task.cancel()
        await asyncio.wait({task}, timeout=1.0)
    elif not task.cancelled() and (error := task.exception()) is not None:
        log.debug("a Kafka client did not end well: %r", error)
    return bool(done)


@asynccontextmanager
async def running(client: Any, bus: BusSettings) -> AsyncIterator[Any]:
    """A client that is started on entry and stopped on exit."""
    await start(client, bus)
    try:
        yield client
    finally:
        await close(client)


def admin(bus: BusSettings) -> AIOKafkaAdminClient:
    """An admin client, not started; `running()` starts and closes it."""
    return AIOKafkaAdminClient(**bus.connection(), request_timeout_ms=30_000)


async def topic_names(reader: AIOKafkaConsumer) -> set[str]:
    """Names on the cluster of all topics, asked of the broker now. Raises KafkaError."""
    return set((await _metadata(reader)).topics())


async def topic_partitions(reader: AIOKafkaConsumer, *topics: str) -> list[TopicPartition]:
    """All partitions of topics (names on the cluster), asked of the broker now, in their order.

    A topic that is missing has none. Raises KafkaError.
    """
    metadata = await _metadata(reader)
    return [
        TopicPartition(topic, number)
        for topic in topics
        for number in sorted(metadata.partitions_for_topic(topic) or ())
    ]


async def _metadata(reader: AIOKafkaConsumer) -> Any:
    """Metadata of all topics: what a consumer has in memory holds only those that it reads."""
    return await reader._client.fetch_all_metadata()  # noqa: SLF001 - no public way


async def partitions_of(reader: AIOKafkaConsumer, topic: str) -> list[TopicPartition]:
    """All partitions of a topic (name on the cluster). Raises TopicMissing."""
    if numbers := reader.partitions_for_topic(topic):
        return [TopicPartition(topic, number) for number in sorted(numbers)]
    if partitions := await topic_partitions(reader, topic):
        return partitions
    raise TopicMissing(f"topic {topic} does not exist: run `odradek topics apply`")


async def standings(
    client: AIOKafkaAdminClient,
    reader: AIOKafkaConsumer,
    bus: BusSettings,
    group: str,
    partitions: Iterable[TopicPartition],
) -> dict[TopicPartition, tuple[int, str]]:
    """Where a group (without prefix) stands: committed offset and metadata of each partition.

    A partition of which nothing was committed stands at its beginning.

    Raises:
        PositionLost: Retention has deleted a committed offset.
        KafkaError: The group's coordinator has not answered within `COORDINATOR_S`.
    """
    listed = list(partitions)
    if not listed:
        return {}
    beginnings = await reader.beginning_offsets(listed)
    offsets = await _offsets(client, bus.group(group), listed)
    positions = {}
    for partition in listed:
        mark = offsets.get(partition)
        committed = mark is not None and mark.offset >= 0
        check_position(partition, mark.offset if committed else None, beginnings[partition])
        positions[partition] = (
            (mark.offset, mark.metadata) if committed else (beginnings[partition], "")
        )
    return positions


async def _offsets(
    client: AIOKafkaAdminClient, group: str, partitions: list[TopicPartition]
) -> Any:
    deadline = time.monotonic() + COORDINATOR_S
    while True:
        try:
            return await client.list_consumer_group_offsets(group, partitions=partitions)
        except KafkaError as error:  # a coordinator that moves, or that reads its log
            if not away(error) or time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


def check_position(partition: TopicPartition, offset: int | None, beginning: int) -> None:
    """Raise PositionLost if the log begins after `offset`."""
    if offset is not None and offset < beginning:
        raise PositionLost(
            f"{partition.topic}[{partition.partition}] begins at {beginning}, but we had read only "
            f"up to {offset}: retention deleted {beginning - offset} records that nobody processed"
        )


def away(error: KafkaError) -> bool:
    """Whether an error of aiokafka means that the broker may answer later."""
    return bool(error.retriable) or isinstance(error, KafkaTimeoutError)


async def gone(reader: AIOKafkaConsumer, topic: str) -> bool:
    """Whether the broker says that a topic (name on the cluster) is not there.

    Kafka's client asks for ever where there is no topic, as it does where no broker is. A broker
    that is away says nothing: False.
    """
    try:
        async with asyncio.timeout(LOOK_S):
            names = await topic_names(reader)
    except (KafkaError, TimeoutError):
        return False
    return bool(names) and topic not in names


def missing(error: KafkaError) -> bool:
    """Whether an error of aiokafka means that a topic is not there."""
    return isinstance(error, UnknownTopicOrPartitionError)
