"""Who wants an event: the webhooks of a task's configs, or the webhook of one subscription."""

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Any, Final, Protocol, Self

from aiokafka import TopicPartition

from odradek.agents.binding.responses import EventHeaders
from odradek.agents.push.configs import ConfigBook
from odradek.agents.push.sender import PostTarget
from odradek.infra.bus import BusSettings, consumer, partitions_of, record_of, running
from odradek.infra.errors import BusError
from odradek.schemas.topics import A2A_PUSH, agent_topic

IDLE_MS: Final = 200
HURRIED_MS: Final = 10
"""How long a poll waits while events wait for what it brings."""


class PostTargets(Protocol):
    """Says who wants an event."""

    async def __aenter__(self) -> Self:
        """Begin to follow who wants what."""
        ...

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        ...

    async def current(self, partition: int) -> None:
        """Return once all is known that was written before an event that was just read."""
        ...

    def wanting(self, event: EventHeaders, partition: int) -> Iterable[PostTarget]:
        """Who wants an event of a partition."""
        ...

    def still(self, target: PostTarget, task_id: str, partition: int) -> bool:
        """Whether a target wants events of a task still."""
        ...


class ConfigTargets:
    """The webhooks of push notification configs (A2A 4.3), as `a2a.push.<agent>` has them.

    Args:
        bus: Where Kafka is.
        agent: Whose.
    """

    def __init__(self, bus: BusSettings, agent: str) -> None:
        self._bus = bus
        self._topic = bus.topic(agent_topic(A2A_PUSH, agent))
        self._books: dict[int, ConfigBook] = {}
        self._read_to: dict[int, int] = {}
        self._moved = asyncio.Condition()
        self._hurried = 0

    async def __aenter__(self) -> Self:
        """See `PostTargets`."""
        async with AsyncExitStack() as opened:
            self._reader = await opened.enter_async_context(running(consumer(self._bus), self._bus))
            # An end that counts what is not committed yet: a config's transaction may end on this
            # topic a moment after it has ended on that of the events.
            self._ends = await opened.enter_async_context(
                running(consumer(self._bus, committed=False), self._bus)
            )
            partitions = await partitions_of(self._reader, self._topic)
            self._reader.assign(partitions)
            for where, offset in (await self._reader.beginning_offsets(partitions)).items():
                self._reader.seek(where, offset)
                self._books[where.partition] = ConfigBook()
                self._read_to[where.partition] = offset
            self._opened = opened.pop_all()
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        """See `PostTargets`."""
        self._reading.cancel()
        await asyncio.wait({self._reading})
        await self._opened.aclose()

    async def current(self, partition: int) -> None:
        """See `PostTargets`. Raises BusError."""
        where = TopicPartition(self._topic, partition)
        end = (await self._ends.end_offsets([where]))[where]
        self._hurried += 1
        try:
            async with self._moved:
                while self._read_to[partition] < end:
                    if self._reading.done():
                        raise BusError(f"{self._topic} cannot be read any more")
                    await self._moved.wait()
        finally:
            self._hurried -= 1

    def wanting(self, event: EventHeaders, partition: int) -> Iterable[PostTarget]:
        """See `PostTargets`."""
        configs = self._books[partition].of_task(event.task_id)
        return [_target(config) for config in configs.wanting(event.generation)]

    def still(self, target: PostTarget, task_id: str, partition: int) -> bool:
        """See `PostTargets`: no event goes to a config after its deletion (A2A 3.1.10)."""
        return self._books[partition].of_task(task_id).find(target.id) is not None

    async def _read(self) -> None:
        try:
            while True:
                wait = HURRIED_MS if self._hurried else IDLE_MS
                fetched = await self._reader.getmany(timeout_ms=wait)
                for where, messages in fetched.items():
                    for message in messages:
                        self._books[where.partition].take(record_of(message, self._bus))
                # The position passes the ends of transactions, too, which are no records.
                for where in self._reader.assignment():
                    self._read_to[where.partition] = await self._reader.position(where)
                async with self._moved:
                    self._moved.notify_all()
        finally:
            async with self._moved:
                self._moved.notify_all()


def _target(config: Any) -> PostTarget:
    given = config.authentication
    both = bool(given.scheme and given.credentials)
    return PostTarget(
        id=config.id,
        url=config.url,
        token=config.token,
        authorization=f"{given.scheme} {given.credentials}" if both else "",
    )


class SubscriptionTargets:
    """The one webhook of a subscription.

    Args:
        target: Whom events are posted to.
        states: Names of the task states whose events are wanted; none for all events.
    """

    def __init__(self, target: PostTarget, states: Iterable[str] = ()) -> None:
        self._target = target
        self._states = frozenset(states)

    async def __aenter__(self) -> Self:
        """See `PostTargets`."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """See `PostTargets`."""

    async def current(self, partition: int) -> None:
        """See `PostTargets`."""

    def wanting(self, event: EventHeaders, partition: int) -> Iterable[PostTarget]:
        """See `PostTargets`."""
        del partition
        return [self._target] if not self._states or event.state in self._states else []

    def still(self, target: PostTarget, task_id: str, partition: int) -> bool:
        """See `PostTargets`."""
        del target, task_id, partition
        return True
