"""aiokafka's consumer and admin client over the simulated cluster, with its behaviour where it bites.

Trap 1: `getmany` hands out records of new partitions, from the committed offset on, while
`on_partitions_assigned` is still awaiting. Trap 2: what it has handed out may belong to a partition
that is lost before the caller goes on. The callback's exceptions are swallowed.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    NoOffsetForPartitionError,
    UnknownMemberIdError,
)
from aiokafka.structs import OffsetAndMetadata

from tests.simulation.cluster import Cluster, Message
from tests.simulation.groups import Member
from tests.simulation.network import Client


class _Metadata:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def topics(self) -> set[str]:
        return set(self._cluster.topics)

    def partitions_for_topic(self, topic: str) -> set[int]:
        return set(range(len(self._cluster.topics.get(topic, ()))))


class _Connections:
    """What the product reaches through `_client` for want of a public way."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def fetch_all_metadata(self) -> _Metadata:
        return await self._client.call(_Metadata, self._client.net.cluster)

    async def close(self) -> None:
        """Nothing is held."""


class SimConsumer(Client):
    """AIOKafkaConsumer: subscribed in a group, or assigned."""

    def __init__(
        self,
        *topics: str,
        group_id: str | None = None,
        group_instance_id: str | None = None,
        isolation_level: str = "read_uncommitted",
        max_poll_records: int | None = None,
        **_: Any,
    ) -> None:
        super().__init__()
        self._group = self.net.groups[group_id] if group_id else None
        self._group_id = group_id
        self._instance = group_instance_id
        self._committed = isolation_level == "read_committed"
        self._most = max_poll_records
        self._topics = list(topics)
        self._listener: Any = None
        self._member: Member | None = None
        self._assignment: list[TopicPartition] = []
        self._positions: dict[TopicPartition, int] = {}
        self._missing: set[TopicPartition] = set()
        self._paused: set[TopicPartition] = set()
        self._reassigning = False
        self._changed = asyncio.Event()
        self._rejoin = asyncio.Event()
        self._closed = False
        self._committing = asyncio.Lock()
        """One commit after another, however often the network repeats it."""
        self._task: asyncio.Task[None] | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._client = _Connections(self)

    # -- membership

    def subscribe(self, topics: Iterable[str], listener: Any = None) -> None:
        self._topics, self._listener = list(topics), listener

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        self._assignment = sorted(partitions)

    async def start(self) -> None:
        await self.call(self.net.cluster.now)
        if self._group is not None and self._topics:
            self._member = Member(self.life, self._topics, self._rejoin.set, self._instance)
            self._reassigning = True
            self._task = asyncio.create_task(self._coordinate())
            self._task.add_done_callback(self._broken)
            while self._reassigning:
                await self._change()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _broken(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.loop.unhandled.append(
                {"message": "a mistake of the simulator", "exception": error}
            )

    async def _coordinate(self) -> None:
        assert self._group is not None
        assert self._member is not None
        while not self._closed:
            self._rejoin.clear()
            self._reassigning = True
            if self._listener is not None:
                await self._tell(self._listener.on_partitions_revoked, list(self._assignment))
            joined = await self.call(self._group.join, self._member)
            try:
                assigned = await joined
            except UnknownMemberIdError:
                continue  # expelled while it waited
            await asyncio.sleep(self.net.way())
            self._assignment = list(assigned)
            self._positions.clear()
            self._missing.clear()
            self._paused.clear()
            self._reassigning = False
            self._changed.set()
            self._refreshing = asyncio.create_task(self._refresh(list(assigned)))
            if self._listener is not None:
                await self._tell(self._listener.on_partitions_assigned, list(assigned))
            await self._rejoin.wait()

    async def _tell(self, callback: Callable[[Any], Any], partitions: Any) -> None:
        try:
            await callback(partitions)
        except Exception as error:
            self.net.loop.unhandled.append({"message": "callback", "exception": error})

    async def _refresh(self, assigned: list[TopicPartition]) -> None:
        """Begin where the group stands, unless the caller seeks first."""
        known = dict(await self.call(self._offsets))
        for where in assigned:
            if where in self._assignment and where not in self._positions:
                if where in known:
                    self._positions[where] = known[where].offset
                else:
                    self._missing.add(where)
        self._changed.set()

    def _offsets(self) -> dict[TopicPartition, OffsetAndMetadata]:
        return self.net.cluster.offsets[self._group_id or ""]

    async def stop(self) -> None:
        if self._closed:
            return
        self._closed = True
        for task in (self._task, self._refreshing):
            if task is not None:
                task.cancel()
        if self._group is not None and self._member is not None and self._instance is None:
            await self.call(self._group.leave, self._member)

    # -- positions

    def assignment(self) -> set[TopicPartition]:
        return set(self._assignment)

    def _check(self, where: TopicPartition) -> None:
        if where not in self._assignment:
            raise IllegalStateError(f"No current assignment for partition {where}")

    def seek(self, where: TopicPartition, offset: int) -> None:
        self._check(where)
        self._positions[where] = offset
        self._missing.discard(where)
        self._changed.set()

    async def seek_to_beginning(self, *partitions: TopicPartition) -> None:
        for where in partitions:
            self.seek(where, 0)

    async def position(self, where: TopicPartition) -> int:
        self._check(where)
        while where not in self._positions:
            await self._change()
        return self._positions[where]

    def pause(self, *partitions: TopicPartition) -> None:
        for where in partitions:
            self._check(where)
        self._paused.update(partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        for where in partitions:
            self._check(where)
        self._paused.difference_update(partitions)
        self._changed.set()

    async def beginning_offsets(
        self, partitions: Iterable[TopicPartition]
    ) -> dict[TopicPartition, int]:
        return await self.call(lambda: dict.fromkeys(partitions, 0))

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        wanted = list(partitions)
        cluster = self.net.cluster
        return await self.call(lambda: {one: cluster.partition(one).stable for one in wanted})

    async def committed(self, where: TopicPartition) -> int | None:
        found = (await self.call(lambda: dict(self._offsets()))).get(where)
        return found.offset if found is not None else None

    async def commit(self, offsets: dict[TopicPartition, int | OffsetAndMetadata]) -> None:
        told = {
            where: OffsetAndMetadata(mark, "") if isinstance(mark, int) else mark
            for where, mark in offsets.items()
        }
        for where in offsets:
            self._check(where)

        def work() -> None:
            assert self._group is not None
            assert self._member is not None
            self._group.check(self._member)
            self.net.cluster.commit(self._group_id or "", told)

        try:
            async with self._committing:
                await self.call(work)
        except UnknownMemberIdError as error:
            raise CommitFailedError from error

    # -- metadata

    def partitions_for_topic(self, topic: str) -> set[int]:
        return _Metadata(self.net.cluster).partitions_for_topic(topic)

    # -- reading

    async def getmany(
        self, *_: TopicPartition, timeout_ms: int = 0, max_records: int | None = None
    ) -> dict[TopicPartition, list[Message]]:
        rng, loop = self.net.rng, self.loop
        # An idle poll may take longer than it was told: that saves steps and hides nothing.
        deadline = loop.time() + timeout_ms / 1000 * rng.uniform(1, 6)
        await asyncio.sleep(self.net.way())
        while True:
            while self._reassigning:
                await self._change()
            if self._missing:
                await asyncio.sleep(0.05)
                raise NoOffsetForPartitionError(f"{len(self._missing)} partitions")
            found = self._drain(max_records or self._most or 500)
            if found:
                if rng.random() < 0.15:  # trap 2: much may happen before the caller goes on
                    await asyncio.sleep(rng.uniform(0, 0.3))
                return found
            if loop.time() >= deadline or self._closed or self.net.over:
                return {}
            await self._data(deadline - loop.time())

    def _drain(self, most: int) -> dict[TopicPartition, list[Message]]:
        cluster, rng = self.net.cluster, self.net.rng
        found: dict[TopicPartition, list[Message]] = {}
        if self.loop.time() < cluster.down_until:
            return found
        for where in self._assignment:
            position = self._positions.get(where)
            if position is None or where in self._paused or most <= 0:
                continue
            size = min(most, rng.choice((1, 4, 500, 500)))
            messages, self._positions[where] = cluster.partition(where).read(
                position, committed=self._committed, most=size
            )
            if messages:
                found[where] = messages
                most -= len(messages)
        return found

    async def _data(self, seconds: float) -> None:
        """Wait until something was appended, or something changed, or this long."""
        self._changed.clear()
        topics = {where.topic for where in self._assignment}
        for topic in topics:
            self.net.cluster.waiting[topic][self] = self._arrived
        timer = self.loop.call_later(seconds, self._changed.set)
        try:
            await self._changed.wait()
        finally:
            timer.cancel()
            for topic in topics:
                self.net.cluster.waiting[topic].pop(self, None)

    def _arrived(self) -> None:
        self.loop.call_later(self.net.way(), self._changed.set, context=self.loop.root)


class SimAdmin(Client):
    """AIOKafkaAdminClient."""

    def __init__(self, **_: Any) -> None:
        super().__init__()

    async def start(self) -> None:
        await self.call(self.net.cluster.now)

    async def close(self) -> None:
        """Nothing is held."""

    async def list_topics(self) -> list[str]:
        return await self.call(lambda: list(self.net.cluster.topics))

    async def list_consumer_group_offsets(
        self, group: str, partitions: list[TopicPartition] | None = None
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        def work() -> dict[TopicPartition, OffsetAndMetadata]:
            known = self.net.cluster.offsets[group]
            wanted = list(known) if partitions is None else partitions
            return {one: known.get(one, OffsetAndMetadata(-1, "")) for one in wanted}

        return await self.call(work)
