"""`odradek.agents.subscribe`: an agent's events as an asynchronous iterator."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from odradek.agents.subscriptions.event import AgentEvent, EventSelection
from odradek.agents.subscriptions.position import EventPosition
from odradek.agents.subscriptions.progress import EventProgress
from odradek.infra.bus import (
    BusSettings,
    Positions,
    Start,
    at_offsets,
    follow,
    record_of,
    require_topics,
    to_end,
)
from odradek.infra.client.subscribe import Since, start_at
from odradek.schemas.topics import A2A_EVENTS, agent_topic

POLL_MS: Final = 200
Place = Since | EventPosition


async def events_of(
    agent: str,
    *,
    selection: EventSelection,
    since: Place,
    follow_on: bool = True,
    bus: BusSettings,
    ready: Callable[[], None] | None = None,
) -> AsyncGenerator[AgentEvent, None]:
    """An agent's events for one reader, which keeps its position itself.

    See `odradek.agents.subscribe` for what the arguments mean. Raises TopicMissing, BusError.
    """
    topic = agent_topic(A2A_EVENTS, agent)
    begun: dict[int, int] = {}
    inner = begin_at(bus, topic, since)

    async def begin(reader: AIOKafkaConsumer, partitions: list[TopicPartition]) -> Positions:
        places = await inner(reader, partitions)
        begun.update({where.partition: offset for where, offset in places.items()})
        return places

    if follow_on:
        stream = follow(bus, topic, start=begin, ready=ready)
    else:
        stream = to_end(bus, topic, start=begin, ready=ready, stall_s=None)
    async with aclosing(stream):  # whoever leaves us closes the consumer, too
        async for record in stream:
            begun[record.partition] = record.offset + 1
            event = selection.event(record, EventPosition(begun))
            if event is not None:
                yield event


async def events_of_group(
    agent: str,
    *,
    selection: EventSelection,
    since: Place,
    group: str,
    bus: BusSettings,
    ready: Callable[[], None] | None = None,
) -> AsyncGenerator[AgentEvent, None]:
    """An agent's events for the members of a group: each event for one of them, at least once.

    An event is over when its reader asks for the next one. Raises TopicMissing, BusError.
    """
    topic = agent_topic(A2A_EVENTS, agent)
    await require_topics(bus, [topic])
    failures: list[BaseException] = []
    name = f"subscription.{group}.{agent}"
    progress = EventProgress(
        bus,
        agent,
        group=name,
        instance=None,
        begin=begin_at(bus, topic, since),
        fail=failures.append,
    )
    await progress.start()
    committing = asyncio.create_task(progress.commit_often())
    try:
        while not failures:
            if ready is not None and progress.settled.is_set():
                ready()
                ready = None
            batches = await progress.reader.getmany(timeout_ms=POLL_MS)
            for where, messages in batches.items():
                owned = progress.owned.get(where.partition)
                for message in messages:
                    # What was fetched before the partition was ours, or before a seek, comes again;
                    # what another member has by now is that member's.
                    if owned is None or owned.lost or message.offset < owned.tracker.next:
                        continue
                    if not owned.tracker.take(message.offset):
                        continue
                    position = EventPosition({where.partition: message.offset + 1})
                    event = selection.event(record_of(message, bus), position)
                    if event is not None:
                        yield event
                    # If we die above this line, the event comes again. Below it, it is over.
                    owned.tracker.finish(message.offset)
        raise failures[0]
    finally:
        committing.cancel()
        await asyncio.wait({committing})
        if not failures:
            await progress.commit()
        await progress.leave()
        await progress.aclose()


def begin_at(bus: BusSettings, topic: str, since: Place) -> Start:
    """Where reading begins. Raises InvalidTime, InvalidPosition."""
    if isinstance(since, str) and since.startswith("p") and since[1:2].isdigit():
        since = EventPosition.parse(since)
    if isinstance(since, EventPosition):
        named = {(topic, partition): offset for partition, offset in since.offsets.items()}
        return at_offsets(bus, named)
    return start_at(since, time.time())
