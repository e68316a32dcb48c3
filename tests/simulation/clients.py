"""aiokafka's three clients over the simulated cluster, with its behaviour where it bites.

Trap 1: `getmany` hands out records of new partitions, from the committed offset on, while
`on_partitions_assigned` is still awaiting. Trap 2: what it has handed out may belong to a partition
that is lost before the caller goes on. The callback's exceptions are swallowed.
"""

import asyncio
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from itertools import count
from random import Random
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import (
    IllegalOperation,
    IllegalStateError,
    KafkaError,
    KafkaTimeoutError,
    NoOffsetForPartitionError,
    ProducerFenced,
)
from aiokafka.structs import OffsetAndMetadata

from odradek.schemas.ids import partition_for
from simulation.cluster import Again, Cluster, Message
from simulation.groups import Group, Member
from simulation.loop import LIFE, Killed, Life, SimLoop

_partition_for = lru_cache(maxsize=65536)(partition_for)


class Chances(NamedTuple):
    """How likely the network is to misbehave, for each call."""

    lost_answer: float = 0.0
    """The call was carried out, its answer is lost, and the client asks again."""
    slow: float = 0.0
    """A way takes a second and not milliseconds."""
    unclear: float = 0.0
    """The end of a transaction is told to nobody: the client gives up waiting."""


class Network:
    """What lies between clients and the broker. `current` is the one of this simulation."""

    current: "Network"

    def __init__(
        self, loop: SimLoop, rng: Random, cluster: Cluster, groups: dict[str, Group]
    ) -> None:
        self.loop = loop
        self.rng = rng
        self.cluster = cluster
        self.groups = groups
        self.chances = Chances()
        self.over = False
        self.calls = 0
        self.numbers = count()

    def way(self) -> float:
        """Seconds that a message is under way."""
        if self.rng.random() < self.chances.slow:
            return self.rng.uniform(0.1, 1.5)
        return self.rng.uniform(0.0005, 0.004)

    async def call(self, life: Life, work: Callable[[], Any]) -> Any:
        """Have the broker do something: there, done, and back. `work` may be done twice."""
        if self.over:
            raise Killed
        answer = self.loop.create_future()
        if life.dead:
            return await answer  # the dead make no calls
        self.calls += 1
        self.loop.call_later(self.way(), self._deliver, life, answer, work, context=self.loop.root)
        return await answer

    def _again(self, delay: float, life: Life, answer: Any, work: Any) -> None:
        if not life.dead:
            self.loop.call_later(delay, self._deliver, life, answer, work, context=self.loop.root)

    def _deliver(self, life: Life, answer: Any, work: Callable[[], Any]) -> None:
        now = self.loop.time()
        if life.dead and self.rng.random() < 0.5:
            return  # it was still in the dead process' buffers
        if now < self.cluster.down_until:
            self._again(self.cluster.down_until - now + self.way(), life, answer, work)
            return
        error: Exception | None = None
        result = None
        try:
            result = work()
        except Again:
            self._again(self.rng.uniform(0.01, 0.05), life, answer, work)
            return
        except KafkaError as raised:
            error = raised
        if self.rng.random() < self.chances.lost_answer:
            self._again(self.rng.uniform(0.3, 3.0), life, answer, work)
            return
        self.loop.call_later(self.way(), _answer, answer, result, error, context=self.loop.root)


def _answer(answer: "asyncio.Future[Any]", result: Any, error: Exception | None) -> None:
    if answer.done():
        return
    if error is not None:
        answer.set_exception(error)
        answer.exception()
    else:
        answer.set_result(result)


class Done(NamedTuple):
    """Where a record stands, as aiokafka's producers tell it."""

    topic: str
    partition: int
    offset: int


class Client:
    """What all three share."""

    def __init__(self) -> None:
        self.net = Network.current
        self.loop = self.net.loop
        life = LIFE.get()
        assert life is not None
        self.life = life

    async def call(self, work: Callable[..., Any], *args: Any, **more: Any) -> Any:
        return await self.net.call(self.life, partial(work, *args, **more))


class SimProducer(Client):
    """AIOKafkaProducer: idempotent, or transactional."""

    def __init__(self, *, transactional_id: str | None = None, **_: Any) -> None:
        super().__init__()
        self._name = transactional_id
        self._epoch = -1
        self._number = next(self.net.numbers)
        self._sequence = count()
        self._queues: dict[TopicPartition, list[Any]] = {}
        self._sending: dict[TopicPartition, asyncio.Task[None]] = {}
        self._within = False
        self._touched = False
        self._fatal: KafkaError | None = None

    async def start(self) -> None:
        if self._name is not None:
            self._epoch = await self.call(self.net.cluster.init_producer, self._name)
        else:
            await self.call(self.net.cluster.now)

    async def send(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Iterable[Any] | None = None,
    ) -> "asyncio.Future[Done]":
        if self._fatal is not None:
            raise self._fatal
        if self._name is not None and not self._within:
            raise IllegalOperation("no transaction was begun")
        if partition is None:
            size = len(self.net.cluster.topics[topic])
            if key is None:
                partition = self.net.rng.randrange(size)
            else:
                partition = _partition_for(key.decode(), size)
        where = TopicPartition(topic, partition)
        future: asyncio.Future[Done] = self.loop.create_future()
        created = int((self.net.cluster.now() + self.life.skew) * 1000)
        record = (key, value, tuple(headers or ()), created)
        self._queues.setdefault(where, []).append((record, future))
        if where not in self._sending:
            self._sending[where] = asyncio.create_task(self._drain(where))
        return future

    async def _drain(self, where: TopicPartition) -> None:
        queue = self._queues[where]
        cluster = self.net.cluster
        try:
            while queue:
                batch = queue[:]
                queue.clear()
                records = [record for record, _ in batch]
                number = (self._number, next(self._sequence))
                try:
                    if self._name is None:
                        first = await self.call(cluster.produce, where, number, records)
                    else:
                        self._touched = True
                        first = await self.call(
                            cluster.produce_in, self._name, self._epoch, where, number, records
                        )
                except KafkaError as error:
                    self._fatal = error
                    for _, future in batch:
                        if not future.done():
                            future.set_exception(error)
                    continue
                for at, (_, future) in enumerate(batch):
                    if not future.done():
                        future.set_result(Done(*where, first + at))
        finally:
            del self._sending[where]

    async def flush(self) -> None:
        while self._sending:
            await asyncio.wait(list(self._sending.values()))

    async def begin_transaction(self) -> None:
        if self._fatal is not None:
            raise self._fatal
        if self._within:
            raise IllegalOperation("a transaction is under way")
        self._within, self._touched = True, False

    async def send_offsets_to_transaction(
        self, offsets: dict[TopicPartition, OffsetAndMetadata], group: str
    ) -> None:
        if not self._within:
            raise IllegalOperation("no transaction was begun")
        self._touched = True
        try:
            await self.call(
                self.net.cluster.offsets_in, self._name, self._epoch, group, dict(offsets)
            )
        except ProducerFenced as error:
            self._fatal = error
            raise

    async def commit_transaction(self) -> None:
        await self._end(commit=True)

    async def abort_transaction(self) -> None:
        await self._end(commit=False)

    async def _end(self, *, commit: bool) -> None:
        await self.flush()
        if self._fatal is not None:
            raise self._fatal
        if self._touched:
            unclear = self.net.rng.random() < self.net.chances.unclear
            if unclear and self.net.rng.random() < 0.5:
                self._fatal = KafkaTimeoutError()
                raise self._fatal
            try:
                await self.call(
                    self.net.cluster.end_transaction, self._name, self._epoch, commit=commit
                )
            except ProducerFenced as error:
                self._fatal = error
                raise
            if unclear:
                self._fatal = KafkaTimeoutError()
                raise self._fatal
        self._within = False

    async def stop(self) -> None:
        await self.flush()


class _Metadata:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def topics(self) -> set[str]:
        return set(self._cluster.topics)

    def partitions_for_topic(self, topic: str) -> set[int]:
        return set(range(len(self._cluster.topics.get(topic, ()))))


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
        self._task: asyncio.Task[None] | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._client = self

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
            assigned = await joined
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

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        told = {where: OffsetAndMetadata(offset, "") for where, offset in offsets.items()}

        def work() -> None:
            assert self._group is not None
            assert self._member is not None
            self._group.check(self._member)
            self.net.cluster.commit(self._group_id or "", told)

        await self.call(work)

    # -- metadata

    def partitions_for_topic(self, topic: str) -> set[int]:
        return _Metadata(self.net.cluster).partitions_for_topic(topic)

    async def fetch_all_metadata(self) -> _Metadata:
        return await self.call(_Metadata, self.net.cluster)

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
