"""Requests to an agent that is down: is each done once, in order, when it comes up?

Requests go to the log while no host runs, many of each context. Then a host starts, and the clock
runs until the last reply is there. What was done is counted from the agent's events.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Final

import msgspec

from odradek.agents.binding.responses import read_event, read_stream
from odradek.agents.client import KafkaConnection, KafkaTransport
from odradek.infra.app.bench.harness.processes import MeasuredProcess
from odradek.infra.app.bench.messages.agent import NAME
from odradek.infra.app.bench.messages.requests import message
from odradek.infra.bus import BusSettings, Record, to_end
from odradek.schemas.topics import A2A_EVENTS, A2A_REQUESTS, agent_topic

CONTEXTS: Final = 100
MARK: Final = "offline-"
"""How the ids of these messages begin."""
TIMEOUT_S: Final = 600.0


class Done(msgspec.Struct):
    """What the events say of one message."""

    begun: int = 0
    ended: int = 0


async def offline(
    bus: BusSettings, host: Callable[[], AbstractContextManager[MeasuredProcess]], requests: int
) -> dict[str, Any]:
    """Send, start the host, wait and count.

    Args:
        bus: Where Kafka is.
        host: Starts the agent's host, and ends it with its block.
        requests: How many.

    Returns:
        `requests`, `done_once`, `out_of_order` (within their contexts), `seconds` from the host's
        start to the last reply, and `per_s` from the first reply to the last.
    """
    async with KafkaConnection(bus, group="bench") as connection:
        transport = KafkaTransport(connection, NAME, timeout_s=TIMEOUT_S)
        replied: list[float] = []

        async def ask(number: int) -> None:
            context = f"context-{number % CONTEXTS}"
            await transport.send_message(
                message(str(number), context_id=context, message_id=f"{MARK}{number}")
            )
            replied.append(time.perf_counter())

        asking = [asyncio.create_task(ask(number)) for number in range(requests)]
        while await _count(bus) < requests:  # reading takes a moment: it need not sleep
            pass
        begun = time.perf_counter()
        with ExitStack() as stack:
            await asyncio.to_thread(stack.enter_context, host())
            await asyncio.gather(*asking)
    events = [record async for record in to_end(bus, agent_topic(A2A_EVENTS, NAME))]
    return {
        "requests": requests,
        **counted(events, requests),
        "seconds": round(replied[-1] - begun, 2),
        "per_s": round(requests / (replied[-1] - replied[0]), 1),
    }


async def _count(bus: BusSettings) -> int:
    """Requests that the log has."""
    records = to_end(bus, agent_topic(A2A_REQUESTS, NAME))
    return sum([1 async for record in records if (record.key or "").startswith("context-")])


def counted(events: Iterable[Record], requests: int) -> dict[str, int]:
    """How many messages began once and ended once, and how many began before an older one.

    Args:
        events: Of the agent, as the log has them.
        requests: How many messages were sent, numbered from 0.
    """
    done: defaultdict[str, Done] = defaultdict(Done)
    last: Counter[str] = Counter()
    message_of: dict[str, str] = {}
    out_of_order = 0
    for record in events:
        event = read_stream(record.value or b"{}")
        task_id = record.key or ""
        if event.HasField("task"):
            sent = event.task.history[0]
            if not sent.message_id.startswith(MARK):
                continue
            message_of[task_id] = sent.message_id
            done[sent.message_id].begun += 1
            number = int(sent.parts[0].text)
            out_of_order += number < last[event.task.context_id]
            last[event.task.context_id] = number
        elif task_id in message_of and read_event(record.headers).ends:
            done[message_of[task_id]].ended += 1
    once = sum(done[f"{MARK}{number}"] == Done(begun=1, ended=1) for number in range(requests))
    return {"done_once": once, "out_of_order": out_of_order}
