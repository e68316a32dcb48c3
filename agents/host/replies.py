"""Answers to requests that named a reply address, and dead letters of those that cannot be read."""

import asyncio
import time
from typing import Any, Final

import msgspec
from a2a.types import SendMessageConfiguration, Task
from a2a.utils.errors import A2AError
from a2a.utils.task import apply_history_length

from odradek.agents.binding import responses
from odradek.agents.binding.headers import RequestHeaders
from odradek.agents.binding.responses import StreamHead
from odradek.agents.errors import RequestRefused
from odradek.infra.bus import Appender, BusSettings, Record, letter
from odradek.schemas.codec import Headers
from odradek.schemas.topics import A2A_DLQ, A2A_REPLIES, agent_topic, find

FRESH_S: Final = 10.0
"""How long a reply topic that was found absent is believed to be."""


def shortened(result: Any, history_length: int | None) -> Any:
    """A message's result with so many of its task's messages; None: all (A2A section 3.2.4)."""
    if history_length is None:
        return result
    wish = SendMessageConfiguration(history_length=history_length)
    if isinstance(result, StreamHead):
        return msgspec.structs.replace(result, task=apply_history_length(result.task, wish))
    return apply_history_length(result, wish) if isinstance(result, Task) else result


class ReplySender:
    """Answers, to addresses that are allowed.

    The address comes from the caller, so it is held against the configured prefix and the
    partitions that are there: a request cannot make a host write anywhere else.
    """

    def __init__(
        self, appender: Appender, bus: BusSettings, agent: str, *, prefix: str, partitions: Any
    ) -> None:
        self._appender = appender
        self._bus = bus
        self._prefix = prefix
        self._partitions = partitions
        self._dlq = agent_topic(A2A_DLQ, agent)
        self._agent = agent
        self._counts: dict[str, tuple[int, float]] = {}
        self._asking = asyncio.Lock()

    async def check(self, called: RequestHeaders) -> None:
        """Raise RequestRefused unless the reply address, where there is one, may be used."""
        topic = called.reply_topic
        if not topic:
            return
        bare = self._bus.bare(topic)
        if not bare.startswith(self._prefix):
            raise RequestRefused("bad_reply_address", f"replies go to {self._prefix}* only")
        if bare.startswith(A2A_REPLIES.name.split("{", maxsplit=1)[0]):
            find(bare)
        count = await self._count(bare)
        if called.reply_partition >= count:
            raise RequestRefused(
                "bad_reply_address", f"partition {called.reply_partition} of {count} does not exist"
            )

    async def _count(self, topic: str) -> int:
        async with self._asking:
            count, asked_at = self._counts.get(topic, (0, 0.0))
            if count == 0 and time.monotonic() - asked_at > FRESH_S:
                count = await self._partitions(self._bus.topic(topic))
                self._counts[topic] = (count, time.monotonic())
            return count

    async def answer(self, called: RequestHeaders, result: Any) -> None:
        """Send an operation's result, if an answer is wanted."""
        if called.reply_topic:
            result = shortened(result, called.history_length)
            head = result if isinstance(result, StreamHead) else None
            headers = responses.reply_headers(called, 200, head)
            await self._send(called, responses.reply(called.operation, result), headers)

    async def error(self, called: RequestHeaders, problem: A2AError) -> None:
        """Send an error, if an answer is wanted."""
        if called.reply_topic:
            status, value = responses.error(problem)
            await self._send(called, value, responses.reply_headers(called, status))

    async def _send(self, called: RequestHeaders, value: bytes, headers: Headers) -> None:
        await self._appender.append(
            self._bus.bare(called.reply_topic),
            key=called.correlation_id or None,
            value=value,
            headers=headers,
            partition=called.reply_partition,
        )

    async def dead_letter(self, record: Record, reason: str, detail: str) -> None:
        """Put a request aside for people."""
        value, headers = letter(record, reason, detail, consumer=f"agent.{self._agent}")
        await self._appender.append(self._dlq, key=record.key, value=value, headers=headers)
