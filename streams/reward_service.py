"""A reward service: a user's function over sealed conversations, its verdicts on the log.

At least once: a verdict is published before its conversation is committed, and its id derives from
the episode and the component, so a repeat is dropped downstream. A function that raises is a dead
letter `reward_failed`, never a number; its episode stays unrewarded when the deadline passes.

A verdict may take minutes, and a member of a group that does not poll for as long is put out of it:
so polling goes on beside the verdicts, and what is judged is committed while others are not.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterable
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
)
from aiokafka.structs import OffsetAndMetadata

from odradek.infra.bus import (
    PATIENT_S,
    BusSettings,
    KafkaAppender,
    OffsetTracker,
    Record,
    admin,
    close,
    consumer,
    record_of,
    require_topics,
    running,
    standings,
    start,
)
from odradek.infra.errors import BusError, InfraError
from odradek.infra.runtime import metrics
from odradek.infra.runtime.reward_signatures import JudgeSettings
from odradek.schemas.topics import CONVERSATIONS, DLQ, REWARDS
from odradek.streams.errors import RewardFailed, RewardRefused, Undecided
from odradek.streams.judges.judge import Judge
from odradek.streams.judges.verdicts import ConversationFilter, Verdicts

log = logging.getLogger("odradek")

POLL_MS: Final = 200
BUSY_S: Final = 1.0
"""How long to wait for a free place before polling without taking anything."""
COMMIT_S: Final = 1.0
COMMIT_WAIT_S: Final = 5.0
"""How long to wait for a commit; the next one repeats what it said."""
DROP_S: Final = 1.0
DOUBT_S: Final = 1.0
"""How long after a worker's end the service's may come, if one signal was for both."""
GRACE_S: Final = 5.0
"""How long a service that is to end waits for verdicts under way."""

Mark = tuple[int, str]
"""A committed offset and its metadata."""


class JudgedPartition:
    """A partition that is ours: which of its conversations are judged, and what judges the rest."""

    def __init__(self, mark: Mark) -> None:
        self.backlog = OffsetTracker(*mark)
        self.committed = mark
        self.verdicts: set[asyncio.Task[None]] = set()

    @property
    def mark(self) -> Mark:
        """The offset to commit."""
        return self.backlog.low_water, self.backlog.metadata


class RewardService(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka is untyped
    """Judges conversations for one component.

    Args:
        bus: Where Kafka is.
        judge: Gives a conversation its reward.
        component: The component that it judges.
        agent: Only this agent's conversations; "" for all.
        everything: Also judge a conversation that did not complete, or whose task does not ask for
            the component.
        concurrency: How many conversations are under way at once, in memory and at the judge.
    """

    def __init__(
        self,
        bus: BusSettings,
        judge: Judge,
        component: str,
        *,
        agent: str = "",
        everything: bool = False,
        concurrency: int = 8,
    ) -> None:
        self.bus = bus
        self.ready = asyncio.Event()
        self._judge = judge
        self._name = f"reward-{component}"
        self._filter = ConversationFilter(component, agent=agent, everything=everything)
        self._concurrency = concurrency
        self._stop = asyncio.Event()
        self._moved = asyncio.Event()
        """A verdict has ended, or we are to end."""
        self._fatal: BaseException | None = None
        self._held: dict[TopicPartition, JudgedPartition] = {}
        self._under_way: set[asyncio.Task[None]] = set()
        self._commit_at = 0.0
        self._reader: AIOKafkaConsumer = None
        self._admin: AIOKafkaAdminClient = None
        self._verdicts: Verdicts | None = None
        self._partitions = 0
        self._keys = JudgeSettings().checked()

    def stop(self) -> None:
        """End within `GRACE_S`, and keep the verdicts given by then."""
        self._stop.set()
        self._moved.set()

    async def run(self) -> None:
        """Judge until `stop()`.

        Raises:
            BusError: Kafka cannot be reached or used.
            RewardRefused: The judge cannot begin.
            NoWorker: It cannot go on.
        """
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._judge.aclose)
            if not await self._unless_stopped(self._start()) or self._stop.is_set():
                return
            await require_topics(self.bus, [CONVERSATIONS.name, REWARDS.name, DLQ.name])
            appender = await KafkaAppender.connect(self.bus, timeout_s=PATIENT_S)
            stack.push_async_callback(appender.aclose)
            self._verdicts = Verdicts(appender, self._judge, self._filter, self._keys, self._ending)
            self._admin = await stack.enter_async_context(running(admin(self.bus), self.bus))
            self._reader = consumer(self.bus, group=self._name)
            self._reader.subscribe([self.bus.topic(CONVERSATIONS.name)], listener=self)
            await start(self._reader, self.bus)
            stack.push_async_callback(close, self._reader)
            try:
                await self._unless_stopped(self._poll_often())
                await self._finish()
            finally:
                await _drop(self._under_way)

    async def _start(self) -> None:
        try:
            await self._judge.start()
        except RewardRefused as error:
            cause = error.__cause__
            if not await self._ending(isinstance(cause, RewardFailed) and cause.lost):
                raise

    async def _ending(self, patient: bool) -> bool:
        """Whether `stop()` was called; if `patient`, wait a moment for it."""
        if patient:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), DOUBT_S)
        return self._stop.is_set()

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> bool:
        """Do something to its end; False if `stop()` came first, and it was dropped."""
        working = asyncio.create_task(work)
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            if not working.done():
                await _drop({working})
        if working.done() and not working.cancelled():
            working.result()
            return True
        return False

    async def _finish(self) -> None:
        """Wait a little for what is under way, and commit what is judged."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=GRACE_S)
        await _drop(self._under_way)
        await self._commit()

    # -- reading

    async def _poll_often(self) -> None:
        while True:
            self._moved.clear()
            free = self._concurrency - len(self._under_way)
            if free or not await self._freed():
                await self._poll(free)
            if time.monotonic() >= self._commit_at:
                await self._commit()

    async def _freed(self) -> bool:
        """Wait for a free place; False if there is none for long."""
        try:
            await asyncio.wait_for(self._moved.wait(), BUSY_S)
        except TimeoutError:
            return False
        return True

    async def _poll(self, free: int) -> None:
        """Take as many conversations as there are free places.

        If there are none, a poll that takes nothing keeps us in the group.
        """
        fetched = await self._fetch(free)
        if self._fatal is not None:
            raise self._fatal
        # From here to the end nothing waits, so no rebalance comes between.
        for partition, messages in fetched.items():
            self._take(partition, messages)

    async def _fetch(self, free: int) -> dict[TopicPartition, list[Any]]:
        turn = self._reader.resume if free else self._reader.pause
        with suppress(IllegalStateError):  # a rebalance goes on; a new assignment begins unpaused
            turn(*self._reader.assignment())
        try:
            fetched: dict[TopicPartition, list[Any]] = await self._reader.getmany(
                timeout_ms=POLL_MS if free else 0, max_records=max(free, 1)
            )
        except NoOffsetForPartitionError:
            # The assignment is being made; its callback seeks to an explicit first position.
            await asyncio.sleep(0.01)
            return {}
        except KafkaError as error:
            raise BusError(f"conversations cannot be read: {error!r}") from error
        return fetched

    def _take(self, partition: TopicPartition, messages: Iterable[Any]) -> None:
        held = self._held.get(partition)
        taken = 0
        for message in messages:
            # What was fetched before the partition was ours, or before a seek, comes again.
            if held is None or message.offset < held.backlog.next:
                continue
            if len(self._under_way) >= self._concurrency:
                with suppress(IllegalStateError):
                    self._reader.seek(partition, held.backlog.next)
                break
            taken += 1
            if held.backlog.take(message.offset):
                self._begin(held, record_of(message, self.bus))
        metrics.count(metrics.CONSUMED, taken, CONVERSATIONS.name, self._name)

    def _begin(self, held: JudgedPartition, record: Record) -> None:
        verdict = asyncio.create_task(self._settle(held, record))
        for tasks in (held.verdicts, self._under_way):
            tasks.add(verdict)
        verdict.add_done_callback(partial(self._ended, held))

    def _ended(self, held: JudgedPartition, verdict: "asyncio.Task[None]") -> None:
        for tasks in (held.verdicts, self._under_way):
            tasks.discard(verdict)
        if not verdict.cancelled() and (error := verdict.exception()) is not None:
            self._fatal = self._fatal or error
        self._moved.set()

    async def _settle(self, held: JudgedPartition, record: Record) -> None:
        assert self._verdicts is not None
        try:
            await self._verdicts.settle(record, self._partitions)
        except Undecided as error:
            # It stays unfinished, so what we commit at our end names it: it is judged again.
            log.info("%s: %s", self._name, error)
            return
        # If we die above this line, the conversation is judged again, under the same id. Below it,
        # the verdict is in the log, and the next commit says so.
        held.backlog.finish(record.offset)

    # -- the group

    async def _commit(self) -> None:
        """Commit what is judged, also of partitions on which older conversations are not."""
        self._commit_at = time.monotonic() + COMMIT_S
        held = {at: judged for at, judged in self._held.items() if judged.mark != judged.committed}
        marks = {at: judged.mark for at, judged in held.items()}
        if not marks:
            return
        try:
            async with asyncio.timeout(COMMIT_WAIT_S):
                await self._reader.commit({at: OffsetAndMetadata(*m) for at, m in marks.items()})
        except (CommitFailedError, IllegalStateError) as error:
            log.info("%s: offsets wait for the rebalance: %s", self._name, type(error).__name__)
        except (KafkaError, TimeoutError) as error:
            log.warning("%s: commit refused: %r", self._name, error)
        else:
            for at, judged in held.items():
                judged.committed = marks[at]

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """A rebalance begins. Most partitions come back, so verdicts under way go on."""
        del revoked
        await self._commit()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Begin where the group stands, on a first start at the beginning."""
        try:
            await self._follow(set(assigned))
        # aiokafka logs and swallows what this raises; it must end the process.
        except (KafkaError, InfraError) as error:
            self._fatal = error
            self._moved.set()

    async def _follow(self, assigned: set[TopicPartition]) -> None:
        for partition in self._held.keys() - assigned:
            self._let_go(partition)
        marks = await standings(self._admin, self._reader, self.bus, self._name, assigned)
        numbers = self._reader.partitions_for_topic(self.bus.topic(CONVERSATIONS.name))
        self._partitions = len(numbers or ())
        for partition, mark in marks.items():
            held = self._held.get(partition)
            if held is not None and held.committed != mark:
                # Another member had it meanwhile, and knows better what is judged.
                self._let_go(partition)
                held = None
            if held is None:
                held = self._held[partition] = JudgedPartition(mark)
            self._reader.seek(partition, held.backlog.next)
        self.ready.set()

    def _let_go(self, partition: TopicPartition) -> None:
        """Drop the verdicts under way on a partition: its owner judges those conversations."""
        for verdict in self._held.pop(partition).verdicts:
            verdict.cancel()


async def _drop(tasks: set["asyncio.Task[None]"]) -> None:
    """Cancel tasks, and wait a moment for their end."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=DROP_S)
