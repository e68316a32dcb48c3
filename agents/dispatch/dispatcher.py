"""The dispatcher: tasks become A2A requests, as many as the trainer keeps up with."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from typing import Final

from aiokafka import TopicPartition

from odradek.agents.dispatch.credit import Credit
from odradek.agents.dispatch.feedback import Feedback
from odradek.agents.dispatch.partition import TaskPartition
from odradek.agents.dispatch.progress import TaskProgress, TaskState
from odradek.agents.dispatch.repeats import RepeatRules
from odradek.agents.dispatch.requests import TaskRequests, records_of
from odradek.agents.dispatch.validation import TaskValidator
from odradek.agents.errors import RequestRefused
from odradek.agents.settings import DispatchSettings
from odradek.agents.trust.settings import TrustSettings
from odradek.agents.trust.signer import RequestSigner
from odradek.infra.bus import (
    PATIENT_S,
    BusSettings,
    FencedWriter,
    KafkaAppender,
    OutgoingRecord,
    PartitionGroup,
    Record,
    admin,
    close,
    consumer,
    dead_letter,
    following,
    read_range,
    record_of,
    require_topics,
    running,
    standings,
    start,
)
from odradek.infra.errors import PartitionLost
from odradek.infra.runtime import metrics, telemetry
from odradek.infra.runtime.process import serve
from odradek.schemas import codec
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import Batch, Purpose, Task
from odradek.schemas.topics import (
    BATCHES,
    EPISODES,
    STEPS,
    TASKS,
)

GROUP: Final = "dispatcher"
POLL_MS: Final = 100
AT_ONCE: Final = 500
"""Tasks between two polls: each may need an answer of the broker, and the group waits so long."""
COMMIT_S: Final = 1.0
TOGETHER: Final = 16
"""Most groups of one transaction."""


class Dispatcher:
    """Sends groups out while credit lasts.

    Args:
        settings: The dispatcher's.
        bus: Where Kafka is.
        trainer: False: no trainer runs, so training groups are counted until they are closed.
        trust: The key by which requests are signed; the environment's if not given.
    """

    def __init__(
        self,
        settings: DispatchSettings,
        bus: BusSettings,
        *,
        trainer: bool = True,
        trust: TrustSettings | None = None,
    ) -> None:
        self._settings = settings
        self._bus = bus
        self._signer = RequestSigner.of(bus, trust)
        self._topic = bus.topic(TASKS.name)
        self._reader = consumer(bus, group=GROUP, instance=settings.instance, sticky=True)
        self._group = PartitionGroup(self._topic, self, self.fail)
        self.ready = self._group.settled
        self.credit = Credit(
            open_groups=settings.open_groups,
            open_evals=settings.open_evals,
            trainer=trainer,
        )
        self._partitions: dict[int, TaskPartition] = {}
        self._waiting: dict[Purpose, deque[TaskRequests]] = {"train": deque(), "eval": deque()}
        self._feedback = Feedback(self.credit, self._pass, self._repeat)
        self._repeats = RepeatRules(
            share=settings.repeat_share, below=settings.repeat_below, most=settings.repeat_most
        )
        self._admission = TaskValidator(self._reader, bus, self._topic)
        self._changed = asyncio.Event()
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None
        metrics.gauge(
            metrics.GROUPS_OUT,
            lambda: [(self.credit.out(purpose), (purpose,)) for purpose in self._waiting],
        )
        metrics.gauge(
            metrics.TASKS_WAITING,
            lambda: [(len(tasks), (purpose,)) for purpose, tasks in self._waiting.items()],
        )

    def stop(self) -> None:
        """End in good order."""
        self._stop.set()
        self._changed.set()

    def fail(self, error: BaseException) -> None:
        """End the process: after such an error nobody knows what the log holds."""
        if self._failure is None:
            self._failure = error
        self.stop()

    async def run(self) -> None:
        """Dispatch until `stop()`. Raises the error that ended it before."""
        try:
            await self._run()
        finally:
            await close(self._reader)

    async def _run(self) -> None:
        await require_topics(self._bus, [TASKS.name, EPISODES.name, BATCHES.name, STEPS.name])
        self._appender = await KafkaAppender.connect(self._bus, timeout_s=PATIENT_S)
        begin = self._feedback.start(self._bus)
        try:
            async with following(self._bus, BATCHES.name, STEPS.name, start=begin) as records:
                self._group.subscribe(self._reader)
                await start(self._reader, self._bus)
                await self._work(records)
        finally:
            await self._appender.aclose()
        if self._failure is not None:
            raise self._failure

    async def _work(self, records: AsyncIterator[Record]) -> None:
        work = [
            asyncio.create_task(part)
            for part in (
                self._read(),
                self._feedback.listen(records),
                self._send(),
                self._commit_often(),
            )
        ]
        for task in work:
            task.add_done_callback(self._ended)
        try:
            await self._stop.wait()
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, self._group.aclose(), return_exceptions=True)
            try:
                if self._stop.is_set() and self._failure is None:
                    await self.commit()
            finally:
                for owned in list(self._partitions.values()):  # a rebalance may take one meanwhile
                    await owned.writer.aclose()
                await close(self._reader)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    def _pass(self, task_ids: Iterable[str]) -> None:
        for task_id in task_ids:
            for owned in self._partitions.values():
                owned.forget(task_id)
        self._changed.set()

    def _repeat(self, batch: Batch) -> None:
        if self._repeats.share:
            for owned in self._partitions.values():
                owned.repeat(batch, self._repeats)

    # -- tasks

    async def _read(self) -> None:
        while True:
            batches = await self._reader.getmany(timeout_ms=POLL_MS, max_records=AT_ONCE)
            for where, messages in batches.items():
                metrics.count(metrics.CONSUMED, len(messages), TASKS.name, GROUP)
                for message in messages:
                    owned = self._partitions.get(where.partition)
                    # What was fetched before the partition was ours, or before a seek, comes
                    # again.
                    if owned is None or message.offset < owned.progress.next:
                        continue
                    await self._take_in(owned, record_of(message, self._bus))
            self._throttle()

    def _throttle(self) -> None:
        """Read no further ahead than the metadata of a commit can tell."""
        assigned = self._reader.assignment()
        for number, owned in self._partitions.items():
            where = TopicPartition(self._topic, number)
            if where not in assigned:
                continue
            if owned.progress.full and not owned.paused:
                self._reader.pause(where)
                owned.paused = True
            elif owned.paused and not owned.progress.full:
                self._reader.resume(where)
                owned.paused = False

    async def _take_in(self, owned: TaskPartition, record: Record) -> None:
        """Queue a task, or go on from the state that its partition's progress has of it."""
        standing = owned.progress.take(record.offset)
        if standing is TaskState.DONE:
            return
        try:
            task = codec.decode(record.value, Task, max_bytes=TASKS.max_bytes)
            self._admission.check_key(record, task)
            if standing is TaskState.WAITING:
                self._check_new(owned, task)
                await self._admission.check(task)
        except (InvalidRecord, RequestRefused) as error:
            await dead_letter(self._appender, record, error.reason, error.detail, consumer=GROUP)
            owned.progress.put(record.offset, TaskState.DONE)
            return
        order = TaskRequests(
            task=task,
            partition=owned.number,
            offset=record.offset,
            traceparent=telemetry.parent_of(record.headers),
        )
        owned.orders[task.task_id] = order
        if self._partitions.get(owned.number) is owned:
            self._enlist(owned, order)

    def _enlist(self, owned: TaskPartition, order: TaskRequests) -> None:
        """Count a task that is out, queue one that waits."""
        if owned.progress.is_out(order.offset):
            self.credit.sent(order.task.task_id, order.task.purpose)
        else:
            self._waiting[order.task.purpose].append(order)
            self._changed.set()

    def _check_new(self, owned: TaskPartition, task: Task) -> None:
        # A partition that is being taken over is not among ours yet.
        if any(task.task_id in other.orders for other in (owned, *self._partitions.values())):
            raise RequestRefused("duplicate_task", "a task of this id is open")

    # -- sending

    async def _send(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            for purpose in ("eval", "train"):
                await self._send_kind(purpose)

    async def _send_kind(self, purpose: Purpose) -> None:
        """Send what credit allows, in the order of arrival, a transaction for each partition."""
        waiting = self._waiting[purpose]
        chosen: dict[int, list[TaskRequests]] = {}
        while waiting and self.credit.free(purpose):
            order = waiting.popleft()
            owned = self._partitions.get(order.partition)
            if owned is None or owned.orders.get(order.task.task_id) is not order:
                continue  # its partition went to another dispatcher
            self.credit.sent(order.task.task_id, purpose)
            chosen.setdefault(order.partition, []).append(order)
        await asyncio.gather(
            *(
                self._send_orders(self._partitions[number], orders)
                for number, orders in chosen.items()
            )
        )

    async def _send_orders(self, owned: TaskPartition, orders: list[TaskRequests]) -> None:
        for at in range(0, len(orders), TOGETHER):
            if self._partitions.get(owned.number) is not owned:
                return  # taken away with the transaction before: its new owner has the rest
            entries: list[OutgoingRecord] = []
            for order in orders[at : at + TOGETHER]:
                entries += records_of(order, self._settings.max_attempts, self._signer)
                owned.progress.put(order.offset, TaskState.SENT)
            await self._commit_partition(owned, entries)

    # -- partitions

    def keep(self, number: int) -> int | None:
        """See `PartitionOwner`."""
        owned = self._partitions.get(number)
        if owned is None:
            return None
        owned.paused = False  # a new assignment begins unpaused
        return owned.progress.next

    async def take(self, number: int) -> int:
        """See `PartitionOwner`: fence the predecessor, then read again what it had under way."""
        where = TopicPartition(self._topic, number)
        writer = FencedWriter(self._bus, GROUP, number)
        await writer.start()
        async with AsyncExitStack() as failed:
            # Cancelled as well: an open producer would fence its successor.
            failed.push_async_callback(writer.aclose)
            async with running(admin(self._bus), self._bus) as client:
                standing = await standings(client, self._reader, self._bus, GROUP, [where])
            first, metadata = standing[where]
            progress = TaskProgress(first, metadata)
            owned = TaskPartition(number, where, writer, progress)
            failed.callback(self._take_back, owned)
            async for record in _stretch(self._bus, number, first, first + progress.recorded):
                await self._take_in(owned, record)
            # Registered before the older batches are read: those that come now are heard, too.
            # Commits meanwhile say that the older ones are not read yet.
            owned.unread = progress.batches
            self._partitions[number] = owned
            # Not earlier: whoever sends, or hears of a batch, passes over a partition that is not
            # registered, and the task would wait, or be out, for ever.
            for order in owned.orders.values():
                self._enlist(owned, order)
            end = self._feedback.batches
            if owned.orders and progress.batches < end:
                batches = read_range(self._bus, BATCHES.name, 0, start=progress.batches, end=end)
                async for record in batches:
                    self._feedback.hear(record)
            owned.unread = None
            failed.pop_all()
        return owned.progress.next

    def _take_back(self, owned: TaskPartition) -> None:
        """A partition was not taken over to the end: taken away meanwhile, as a rule.

        Its groups are out no more. It may have come back since: what is there then is not ours to
        forget.
        """
        if self._partitions.get(owned.number) is owned:
            self._forget(owned.number)

    def lose(self, number: int) -> None:
        """See `PartitionOwner`."""
        if (owned := self._forget(number)) is not None:
            closing = asyncio.create_task(owned.writer.aclose())
            closing.add_done_callback(self._ended)

    def _forget(self, number: int) -> TaskPartition | None:
        """Let go of a partition and of the credit that its groups take, if it is there."""
        owned = self._partitions.pop(number, None)
        if owned is not None:
            for task_id in owned.orders:
                self.credit.forget(task_id)
            self._changed.set()
        return owned

    async def commit(self) -> None:
        """See `PartitionOwner`: commit what moved since the last time."""
        await asyncio.gather(
            *(self._commit_partition(owned) for owned in list(self._partitions.values()))
        )

    async def _commit_partition(
        self, owned: TaskPartition, entries: Iterable[OutgoingRecord] = ()
    ) -> None:
        try:
            await owned.commit(self.credit, self._feedback.batches, entries)
        except PartitionLost as error:
            # Nothing was sent. The new owner has what we read from the log.
            if self._partitions.get(owned.number) is owned:
                self.lose(owned.number)
                self._group.doubt(owned.number, error)

    async def _commit_often(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_S)
            await self.commit()


async def _stretch(bus: BusSettings, partition: int, first: int, end: int) -> AsyncIterator[Record]:
    if end > first:
        async for record in read_range(bus, TASKS.name, partition, start=first, end=end):
            yield record


async def run(settings: DispatchSettings, bus: BusSettings, *, trainer: bool = True) -> None:
    """Dispatch until SIGTERM or SIGINT."""
    await serve(Dispatcher(settings, bus, trainer=trainer), "dispatcher")
