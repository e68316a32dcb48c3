"""A process's place on the bus as a client of agents: it sends requests and hears the replies."""

import asyncio
import random
import time
import uuid
from typing import Any, Final, Self

import msgspec
from a2a.client.errors import A2AClientTimeoutError
from a2a.utils.errors import InternalError
from aiokafka import TopicPartition

from odradek.agents.binding import headers as names
from odradek.agents.binding.headers import RequestHeaders, reserved, write
from odradek.agents.binding.requests import dump
from odradek.agents.binding.responses import read_error
from odradek.agents.client.event_tail import EventTail
from odradek.agents.client.reader import SteadyReader
from odradek.agents.errors import BadRequestHeader
from odradek.agents.trust.settings import TrustSettings
from odradek.agents.trust.signer import RequestSigner
from odradek.infra.bus import BusSettings, KafkaAppender, Record, ensure_topics
from odradek.infra.errors import BusError
from odradek.schemas.topics import A2A_REPLIES, A2A_REQUESTS, agent_topic

GROUP: Final = "clients"
"""The group of clients whose topic of replies is used where none is named."""


class ReceivedReply(msgspec.Struct, frozen=True):
    """The reply to a request."""

    value: bytes
    headers: dict[str, str]
    """The binding's headers, by their lower-case names."""


class KafkaConnection:
    """Sends requests to agents and hears their replies, for all transports of a process.

    Args:
        bus: Where Kafka is.
        group: Names the topic of replies, `a2a.replies.<group>`. Clients that may read each other's
            replies share one; each reads one partition.
        trust: The key by which requests are signed; the environment's if not given.

    Raises:
        ProjectError: Hosts would refuse its requests, since it has no key.
    """

    def __init__(
        self, bus: BusSettings, *, group: str = GROUP, trust: TrustSettings | None = None
    ) -> None:
        self._bus = bus
        self._signer = RequestSigner.of(bus, trust)
        self._replies = agent_topic(A2A_REPLIES, group)
        self._waiting: dict[str, asyncio.Future[ReceivedReply]] = {}
        self._tails: dict[str, EventTail] = {}
        self._reader: SteadyReader | None = None
        self._partition = 0

    async def __aenter__(self) -> Self:
        """Connect. Raises KafkaUnreachable."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect."""
        await self.aclose()

    async def start(self) -> None:
        """Connect, and hear replies from now on. Raises KafkaUnreachable."""
        await ensure_topics(self._bus, [(self._replies, A2A_REPLIES)])
        self._partition = random.randrange(self._bus.partitions(A2A_REPLIES))  # noqa: S311
        self._appender = await KafkaAppender.connect(self._bus)
        where = TopicPartition(self._bus.topic(self._replies), self._partition)
        self._reader = SteadyReader(self._bus, where, self._hear, lost=self._fail)
        await self._reader.ready()

    async def aclose(self) -> None:
        """Disconnect; calls that wait for a reply, and open streams, end with BusError."""
        if self._reader is not None:
            await self._reader.aclose()
            await self._appender.aclose()
        await asyncio.gather(*(tail.aclose() for tail in self._tails.values()))
        self._tails.clear()

    async def call(
        self,
        agent: str,
        called: RequestHeaders,
        request: Any,
        *,
        key: str = "",
        timeout_s: float,
        grace_s: float = 0.0,
    ) -> ReceivedReply:
        """Send a request and await its reply.

        Args:
            agent: Whom.
            called: Operation, extensions, tenant and principal; the rest is filled in here.
            request: The operation's protobuf message, or that as ProtoJSON.
            key: Requests with the same key reach the same host, in order; "": any host.
            timeout_s: After so long nobody waits for the reply, nor does the host begin.
            grace_s: How much longer the reply of a host that has begun is waited for.

        Raises:
            A2AError: The agent's.
            A2AClientTimeoutError: No reply came in time. The request may be carried out still; the
                same message id makes sending it again safe.
            BusError: The log took no request, or replies cannot be read any more.
        """
        correlation = str(uuid.uuid4())
        called = msgspec.structs.replace(
            called,
            correlation_id=correlation,
            reply_topic=self._bus.topic(self._replies),
            reply_partition=self._partition,
            deadline=time.time() + timeout_s,
        )
        reply: asyncio.Future[ReceivedReply] = asyncio.get_running_loop().create_future()
        self._waiting[correlation] = reply
        try:
            async with asyncio.timeout(timeout_s + grace_s):
                if self._reader is not None:
                    await self._reader.ready()
                value = request if isinstance(request, bytes) else dump(request)
                await self._append(agent, called, key or correlation, value)
                return await reply
        except TimeoutError:
            raise A2AClientTimeoutError(
                f"{agent} did not answer within {timeout_s:g} s: is its host running?"
            ) from None
        finally:
            del self._waiting[correlation]

    async def _append(self, agent: str, called: RequestHeaders, key: str, value: bytes) -> None:
        headers = write(called)
        if self._signer is not None:
            headers = self._signer.signed(
                agent, key=key, value=value, headers=headers, principal=called.principal
            )
        topic = agent_topic(A2A_REQUESTS, agent)
        await self._appender.append(topic, key=key, value=value, headers=headers)

    async def events(self, agent: str) -> EventTail:
        """The one reader of an agent's events; what is appended from now on will be seen."""
        tail = self._tails.get(agent)
        if tail is None:
            tail = self._tails[agent] = EventTail(self._bus, agent)
        await tail.ready()
        return tail

    def _fail(self, error: BusError) -> None:
        """Nobody is answered for the time being: say so to all who wait."""
        for reply in self._waiting.values():
            if not reply.done():
                reply.set_exception(BusError(f"replies cannot be read: {error}"))

    def _hear(self, record: Record) -> None:
        """Hand a reply to who waits for it; those of other clients, and late ones, are left."""
        waiting = self._waiting.get(record.key or "")
        if waiting is None or waiting.done():
            return
        try:
            headers = reserved(record.headers)
        except BadRequestHeader as error:
            waiting.set_exception(InternalError(f"the reply cannot be read: {error}"))
            return
        if headers.get(names.STATUS, "") == "200":
            waiting.set_result(ReceivedReply(record.value or b"{}", headers))
        else:
            waiting.set_exception(read_error(record.value or b"{}"))
