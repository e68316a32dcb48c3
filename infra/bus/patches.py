"""What we change in aiokafka, in one place: defects of its client, and how hard it packs."""

import sys
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import partial, wraps
from operator import attrgetter
from typing import Any, Final
from weakref import WeakSet

import aiokafka.client
import aiokafka.producer.sender
import aiokafka.record.default_records
from aiokafka import codec
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError, UnknownMemberIdError, kafka_errors
from aiokafka.producer.message_accumulator import MessageBatch
from aiokafka.producer.transaction_manager import TransactionManager

LEVEL: Final = 1
"""Of zstd. Token ids pack about as small at any level; at 3, which aiokafka has for good, packing a
long turn takes several times as long."""

FENCED_INSTANCE_ID: Final = 82
"""Kafka's code of an error that aiokafka has no name for (KIP-345)."""

BETWEEN_S: Final = 0.002
"""How long a producer waits before it asks again whether its last transaction is over."""

_opening: ContextVar[Any] = ContextVar("opening")
"""The client for which a connection is being opened."""


def mend() -> None:
    """Change all of it, once."""
    if not hasattr(AIOKafkaConnection.send, "__wrapped__"):
        _refuse_broken()
        _keep_topics()
        _hush_transactions()
        _pack_lightly()
        _follow_closely()
        _join_again()
        _close_all()


def _follow_closely() -> None:
    """Shorten the wait between two transactions of a producer, for which there is no option.

    A broker answers that a transaction is committed, and then writes so into each partition
    (KAFKA-5477). A next one that comes meanwhile is to ask again, which aiokafka does 20 ms later.
    """
    aiokafka.producer.sender.BACKOFF_OVERRIDE = BETWEEN_S


def _join_again() -> None:
    """Make a member of a group that another one of its name displaced join again.

    aiokafka takes the answer for an error that nobody foresaw, and ends the consumer. It may be a
    successor's first answer: its predecessor, about to end, hears in a heartbeat that it is not
    known any more, joins again (this too is aiokafka's way), and displaces the successor.
    """
    kafka_errors[FENCED_INSTANCE_ID] = UnknownMemberIdError


def _close_all() -> None:
    """Make a client that is closed leave no connection open.

    aiokafka closes those that it has noted. It has not noted one over which it asked for the first
    metadata when it was cancelled, nor one that a task of it opened while it was being closed.
    """
    create = aiokafka.client.create_conn

    @wraps(create)
    async def noted(*args: Any, **settings: Any) -> AIOKafkaConnection:
        connection = await create(*args, **settings)
        client = _opening.get()
        if client.__dict__.get("_is_closed"):
            connection.close()
            raise KafkaConnectionError("the client was closed meanwhile")
        client.__dict__.setdefault("_ever_opened", WeakSet()).add(connection)
        return connection

    aiokafka.client.create_conn = noted
    AIOKafkaClient.bootstrap = _for_client(AIOKafkaClient.bootstrap)
    AIOKafkaClient._get_conn = _for_client(AIOKafkaClient._get_conn)  # noqa: SLF001 - the other one that opens
    close = AIOKafkaClient.close

    @wraps(close)
    async def whole(self: Any) -> None:
        self._is_closed = True
        try:
            await close(self)
        finally:
            for connection in self.__dict__.get("_ever_opened", ()):
                connection.close()

    AIOKafkaClient.close = whole


def _for_client(opens: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @wraps(opens)
    async def opening(self: Any, *args: Any, **more: Any) -> Any:
        token = _opening.set(self)
        try:
            return await opens(self, *args, **more)
        finally:
            _opening.reset(token)

    return opening


def _pack_lightly() -> None:
    """Set the level of zstd, for which aiokafka has no option (Kafka: KIP-390)."""
    builder = aiokafka.record.default_records.DefaultRecordBatchBuilder
    module = sys.modules[builder.__module__]  # compiled, or plain Python where it is not
    vars(module)["zstd_encode"] = partial(codec.zstd_encode, level=LEVEL)


def _keep_topics() -> None:
    """Make a producer ask about every topic that it writes to whenever it asks about one.

    aiokafka does not note a topic that it knows already, from when it asked about all of them. Once
    it asks about another one it forgets the first, and what waits there to be sent (a transaction's
    first records do) is given up half a minute later as having no leader.
    """
    wait = AIOKafkaClient._wait_on_metadata  # noqa: SLF001 - where every send passes

    @wraps(wait)
    async def noted(self: Any, topic: str) -> Any:
        self._topics.add(topic)
        return await wait(self, topic)

    AIOKafkaClient._wait_on_metadata = noted  # noqa: SLF001


def _hush_transactions() -> None:
    """Report a producer's error once, to whoever awaits the call that fails.

    aiokafka also keeps it for whoever will await the transaction's end, or a batch's. After an
    error nobody does, and asyncio would print tracebacks for each producer that was fenced.
    """
    waiter = attrgetter("_drain_waiter")
    MessageBatch.failure = _noticed(MessageBatch.failure, waiter)
    end = TransactionManager.wait_for_transaction_end
    TransactionManager.fatal_error = _noticed(TransactionManager.fatal_error, end)
    TransactionManager.error_transaction = _noticed(TransactionManager.error_transaction, end)


def _noticed(fail: Callable[..., None], future: Callable[[Any], Any]) -> Callable[..., None]:
    @wraps(fail)
    def noticed(self: Any, *args: Any, **more: Any) -> None:
        fail(self, *args, **more)
        if not future(self).cancelled():
            future(self).exception()

    return noticed


def _refuse_broken() -> None:
    """Make a request on a connection that was just reset an error that clients retry.

    aiokafka writes to the connection without asking whether it still stands, and expects an
    OSError. asyncio's transport takes such bytes silently, uvloop's raises RuntimeError: that ended
    the sender of a producer, so that one reset connection made every later append fail, for ever.
    """
    send = AIOKafkaConnection.send

    @wraps(send)
    def standing(self: Any, request: Any, expect_response: bool = True) -> Any:
        writer = self._writer
        if writer is not None and writer.transport.is_closing():
            self.close(reason=CloseReason.CONNECTION_BROKEN)
            raise KafkaConnectionError(f"Connection at {self.host}:{self.port} broken")
        return send(self, request, expect_response)

    AIOKafkaConnection.send = standing
