"""Delivers an agent's events: reads them as a member of a group, posts them, commits what is over.

`deliveries` decides; this file does the reading, posting and committing. A partition's mark is its
oldest event that some webhook has not taken yet, and the metadata of the commit says which events
behind it are over. So a successor posts again what was under way, and little else.
"""

import asyncio
import logging
import random
from collections.abc import Coroutine
from typing import Any, Final

import msgspec
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata

from odradek.agents.binding import headers as names
from odradek.agents.binding.responses import EventHeaders, read_event
from odradek.agents.errors import BadRequestHeader
from odradek.agents.push.deliveries import Delivery, DeliveryLimits, DeliveryQueue
from odradek.agents.push.sender import PostTarget, WebhookSender
from odradek.agents.push.targets import PostTargets
from odradek.infra.bus import (
    PATIENT_S,
    BusSettings,
    KafkaAppender,
    OffsetTracker,
    PartitionGroup,
    Record,
    Start,
    admin,
    at_beginning,
    close,
    consumer,
    letter,
    record_of,
    require_topics,
    running,
    standings,
    start,
)
from odradek.infra.runtime.crash_points import crash_point
from odradek.schemas.codec import header
from odradek.schemas.topics import A2A_DLQ, A2A_EVENTS, agent_topic

POLL_MS: Final = 100
AT_ONCE: Final = 500
"""Records of one fetch."""
COMMIT_S: Final = 0.5
LOOK_S: Final = 1.0
"""How often it is looked at what waits in vain."""
LAST_S: Final = 10.0
"""How long posts that are under way may take once the process is to end."""
log = logging.getLogger("odradek")


class EventPartition:
    """An owned partition of events.

    Attributes:
        number: Which.
        tracker: Which of its events are over.
        left: By offset, how many webhooks have not taken an event yet.
        lost: Whether another member has it now.
    """

    def __init__(self, number: int, tracker: OffsetTracker) -> None:
        self.number = number
        self.tracker = tracker
        self.left: dict[int, int] = {}
        self.lost = False
        self.committed = (-1, "")

    def settle(self, offset: int) -> None:
        """One webhook more has taken an event, or never will."""
        self.left[offset] -= 1
        if not self.left[offset]:
            del self.left[offset]
            self.tracker.finish(offset)


class _Post(msgspec.Struct, frozen=True):
    """An event for a webhook."""

    owned: EventPartition
    record: Record
    event: EventHeaders
    target: PostTarget


class DeliveryWorker:
    """Posts the events of one agent to those who want them, at least once, in order per task.

    Args:
        bus: Where Kafka is.
        agent: Whose events.
        group: The consumer group that keeps the progress, without prefix.
        targets: Who wants what.
        sender: Posts.
        limits: How patient deliveries are.
        instance: See `ODRADEK_INSTANCE`.
        begin: Where a group without progress begins.
    """

    def __init__(
        self,
        bus: BusSettings,
        agent: str,
        *,
        group: str,
        targets: PostTargets,
        sender: WebhookSender,
        limits: DeliveryLimits,
        instance: str | None = None,
        begin: Start = at_beginning,
    ) -> None:
        self._bus = bus
        self._agent = agent
        self._topic = bus.topic(agent_topic(A2A_EVENTS, agent))
        self._group_name = group
        self._targets = targets
        self._sender = sender
        self._begin_at = begin
        self._queue = DeliveryQueue(limits, random.random)
        self._owned: dict[int, EventPartition] = {}
        self._posts: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None
        self._paused = False
        self._reader = consumer(bus, group=group, instance=instance, sticky=True)
        self._group = PartitionGroup(self._topic, self, self.fail)
        self.ready = self._group.settled
        """Set while every partition that is ours is read."""

    def stop(self) -> None:
        """End in good order: what is under way may end."""
        self._stop.set()

    def fail(self, error: BaseException) -> None:
        """End with an error: nobody knows what the log holds."""
        if self._failure is None:
            self._failure = error
        self._stop.set()

    async def run(self) -> None:
        """Deliver until `stop()`. Raises the error that ended it before."""
        try:
            await require_topics(self._bus, [agent_topic(A2A_EVENTS, self._agent)])
            self._appender = await KafkaAppender.connect(self._bus, timeout_s=PATIENT_S)
            try:
                async with self._targets:
                    self._group.subscribe(self._reader)
                    await start(self._reader, self._bus)
                    await self._work()
            finally:
                await self._appender.aclose()
        finally:
            await close(self._reader)
        if self._failure is not None:
            raise self._failure

    async def _work(self) -> None:
        work = [asyncio.create_task(part) for part in (self._read(), self._pump(), self._commits())]
        for task in work:
            task.add_done_callback(self._ended)
        try:
            await self._stop.wait()
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, self._group.aclose(), return_exceptions=True)
            if self._posts:
                await asyncio.wait(self._posts, timeout=LAST_S)
            for post in self._posts:
                post.cancel()
            if self._failure is None:
                await self.commit()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    # -- reading

    async def _read(self) -> None:
        while True:
            self._throttle()
            batches = await self._reader.getmany(timeout_ms=POLL_MS, max_records=AT_ONCE)
            for where, messages in batches.items():
                await self._targets.current(where.partition)
                owned = self._owned.get(where.partition)
                for message in messages:
                    # What was fetched before the partition was ours, or before a seek, comes again.
                    if owned is not None and message.offset >= owned.tracker.next:
                        self._receive(owned, record_of(message, self._bus))
            self._changed.set()

    def _throttle(self) -> None:
        """Read nothing while too much waits; the next look is a poll away."""
        if not (self._paused or self._queue.full):
            return
        try:
            for number in self._owned:
                where = TopicPartition(self._topic, number)
                (self._reader.pause if self._queue.full else self._reader.resume)(where)
            self._paused = self._queue.full
        except IllegalStateError:
            return  # a rebalance goes on; the next assignment says whose it is

    def _receive(self, owned: EventPartition, record: Record) -> None:
        if not owned.tracker.take(record.offset):
            return
        try:
            event = read_event(record.headers)
        except (BadRequestHeader, ValueError):
            owned.tracker.finish(record.offset)  # no event of ours
            return
        # A dead letter that was sent again is for its own webhook alone.
        only = header(record.headers, names.WEBHOOK)
        wanting = [
            target
            for target in self._targets.wanting(event, owned.number)
            if only is None or only == target.id
        ]
        if not wanting:
            owned.tracker.finish(record.offset)
            return
        owned.left[record.offset] = len(wanting)
        now = asyncio.get_running_loop().time()
        for target in wanting:
            lane = f"{target.id}/{event.task_id}"
            self._queue.add(
                Delivery(
                    lane=lane,
                    webhook=target.url,
                    host=target.shown,
                    work=_Post(owned, record, event, target),
                ),
                now,
            )

    # -- posting

    async def _pump(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            now = loop.time()
            for delivery in self._queue.hopeless(now):
                why = "its webhook was left alone for too long"
                self._begin(self._give_up(delivery.work, "webhook_dead", why))
            for delivery in self._queue.start(now):
                self._begin(self._deliver(delivery))
            wake = self._queue.wake_at()
            pause = LOOK_S if wake is None else min(LOOK_S, max(0.0, wake - loop.time()))
            try:
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        post = asyncio.create_task(work)
        self._posts.add(post)
        post.add_done_callback(self._posts.discard)
        post.add_done_callback(self._ended)

    async def _deliver(self, delivery: Delivery) -> None:
        work: _Post = delivery.work
        owned, target = work.owned, work.target
        if owned.lost or not self._targets.still(target, work.event.task_id, owned.number):
            self._queue.withdraw(delivery)
            owned.settle(work.record.offset)
            self._changed.set()
            return
        result = await self._sender.post(
            target,
            work.record.value or b"",
            delivery_id=f"{work.event.task_id}.{work.event.generation}",
        )
        crash_point("posted_before_settled")
        now = asyncio.get_running_loop().time()
        if result.delivered:
            self._queue.delivered(delivery)
            owned.settle(work.record.offset)
        elif self._queue.failed(
            delivery, now, retry_after=result.retry_after, final=bool(result.final)
        ):
            await self._give_up(work, result.final or "webhook_gave_up", result.shown)
        # If we die above this line, a successor posts the event again. Below it, the next commit
        # says that it is over.
        self._changed.set()

    async def _give_up(self, work: _Post, reason: str, detail: str) -> None:
        """Write the dead letter of an event that a webhook did not take."""
        if work.owned.lost:
            return
        record, target = work.record, work.target
        detail = f"{target.shown} ({target.id}): {detail}"
        value, headers = letter(record, reason, detail, consumer=self._group_name)
        own = tuple(pair for pair in headers if pair[0] != names.WEBHOOK)
        log.warning("%s: an event is a dead letter, %s: %s", self._agent, reason, detail)
        await self._appender.append(
            agent_topic(A2A_DLQ, self._agent),
            key=record.key,
            value=value,
            headers=(*own, (names.WEBHOOK, target.id.encode())),
        )
        crash_point("letter_before_settled")
        work.owned.settle(record.offset)

    # -- partitions

    async def take(self, number: int) -> int:
        """See `PartitionOwner`."""
        where = TopicPartition(self._topic, number)
        if await self._reader.committed(where) is None:
            offset, metadata = (await self._begin_at(self._reader, [where]))[where], ""
            # Written down before anything is read: a restart begins here, and not at a later end.
            await self._reader.commit({where: OffsetAndMetadata(offset, metadata)})
        else:
            async with running(admin(self._bus), self._bus) as client:
                standing = await standings(
                    client, self._reader, self._bus, self._group_name, [where]
                )
            offset, metadata = standing[where]
        owned = EventPartition(number, OffsetTracker(offset, metadata))
        owned.committed = (offset, metadata)
        self._owned[number] = owned
        return offset

    def keep(self, number: int) -> int | None:
        """See `PartitionOwner`."""
        owned = self._owned.get(number)
        self._paused = True  # a new assignment begins unpaused: look again
        return None if owned is None else owned.tracker.next

    def lose(self, number: int) -> None:
        """See `PartitionOwner`: what waits is another member's, what is under way may end."""
        owned = self._owned.pop(number)
        owned.lost = True
        self._queue.drop(lambda delivery: delivery.work.owned is owned)

    async def commit(self) -> None:
        """See `PartitionOwner`: commit the marks that have moved."""
        marks = {
            number: (owned.tracker.low_water, owned.tracker.metadata)
            for number, owned in self._owned.items()
        }
        offsets = {
            TopicPartition(self._topic, number): OffsetAndMetadata(*mark)
            for number, mark in marks.items()
            if mark != self._owned[number].committed
        }
        if not offsets:
            return
        try:
            # If we die above this line, events that were taken are posted again. Below it, none is.
            await self._reader.commit(offsets)
        except (CommitFailedError, IllegalStateError) as error:
            log.info("offsets wait for the rebalance: %s", type(error).__name__)
            return
        except KafkaError as error:
            if not error.retriable:
                self.fail(error)
            return
        for where in offsets:
            if (owned := self._owned.get(where.partition)) is not None:
                owned.committed = marks[where.partition]

    async def _commits(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_S)
            await self.commit()
