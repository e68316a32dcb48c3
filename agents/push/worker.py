"""Delivers an agent's events: reads them as a member of a group, posts them, commits what is over.

`deliveries` decides; this file does the reading and posting. An event is over when each webhook
that wants it has taken it, or never will; the group's progress says so (`subscriptions.progress`).
"""

import asyncio
import logging
import random
from collections.abc import Coroutine
from typing import Any, Final

import msgspec

from odradek.agents.binding import headers as names
from odradek.agents.binding.responses import EventHeaders, read_event
from odradek.agents.errors import BadRequestHeader
from odradek.agents.push.deliveries import Delivery, DeliveryLimits, DeliveryQueue
from odradek.agents.push.sender import PostTarget, WebhookSender
from odradek.agents.push.targets import PostTargets
from odradek.agents.subscriptions.progress import EventProgress, OwnedEvents
from odradek.infra.bus import (
    PATIENT_S,
    BusSettings,
    KafkaAppender,
    Record,
    Start,
    at_beginning,
    letter,
    record_of,
    require_topics,
)
from odradek.infra.runtime.crash_points import crash_point
from odradek.schemas.codec import header
from odradek.schemas.topics import A2A_DLQ, A2A_EVENTS, agent_topic

POLL_MS: Final = 100
AT_ONCE: Final = 500
"""Records of one fetch."""
LOOK_S: Final = 1.0
"""How often it is looked at what waits in vain."""
LAST_S: Final = 10.0
"""How long posts that are under way may take once the process is to end."""
log = logging.getLogger("odradek")


class _Post(msgspec.Struct, frozen=True):
    """An event for a webhook."""

    owned: OwnedEvents
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
        self._group_name = group
        self._targets = targets
        self._sender = sender
        self._queue = DeliveryQueue(limits, random.random)
        self._posts: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None
        self._progress = EventProgress(
            bus,
            agent,
            group=group,
            instance=instance,
            begin=begin,
            fail=self.fail,
            lost=self._lose,
        )
        self.ready = self._progress.settled
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
                    await self._progress.start()
                    await self._work()
            finally:
                await self._appender.aclose()
        finally:
            await self._progress.aclose()
        if self._failure is not None:
            raise self._failure

    async def _work(self) -> None:
        work = [
            asyncio.create_task(part)
            for part in (self._read(), self._pump(), self._progress.commit_often())
        ]
        for task in work:
            task.add_done_callback(self._ended)
        try:
            await self._stop.wait()
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, self._progress.leave(), return_exceptions=True)
            if self._posts:
                await asyncio.wait(self._posts, timeout=LAST_S)
            for post in self._posts:
                post.cancel()
            if self._failure is None:
                await self._progress.commit()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    # -- reading

    async def _read(self) -> None:
        while True:
            self._progress.hold(still=self._queue.full)
            batches = await self._progress.reader.getmany(timeout_ms=POLL_MS, max_records=AT_ONCE)
            for where, messages in batches.items():
                await self._targets.current(where.partition)
                owned = self._progress.owned.get(where.partition)
                for message in messages:
                    # What was fetched before the partition was ours, or before a seek, comes again.
                    if owned is not None and message.offset >= owned.tracker.next:
                        self._receive(owned, record_of(message, self._bus))
            self._changed.set()

    def _receive(self, owned: OwnedEvents, record: Record) -> None:
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
        work.owned.settle(record.offset)

    def _lose(self, owned: OwnedEvents) -> None:
        """What waits is another member's; what is under way may end."""
        self._queue.drop(lambda delivery: delivery.work.owned is owned)
