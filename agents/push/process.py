"""What `odradek push` and `odradek subscribe` run."""

import asyncio
from collections.abc import Iterable

from a2a.types import AgentCard
from google.protobuf.json_format import Parse, ParseError

from odradek.agents.push.addresses import WebhookRules
from odradek.agents.push.sender import PostTarget, WebhookSender
from odradek.agents.push.settings import PushSettings
from odradek.agents.push.targets import ConfigTargets, PostTargets, SubscriptionTargets
from odradek.agents.push.worker import DeliveryWorker
from odradek.infra.bus import (
    BusSettings,
    Record,
    Start,
    at_beginning,
    following,
    passed_over,
    require_topics,
    to_end,
)
from odradek.infra.runtime.process import serve
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.topics import CARDS


class PushDispatcher:
    """Posts the events of all agents that take push notification configs.

    Args:
        settings: The dispatcher's.
        bus: Where Kafka is.
        agents: Of these only; none for all, also those that come later.
    """

    def __init__(
        self, settings: PushSettings, bus: BusSettings, agents: Iterable[str] = ()
    ) -> None:
        self._settings = settings
        self._bus = bus
        self._only = frozenset(agents)
        self._workers: dict[str, DeliveryWorker] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None
        self.ready = asyncio.Event()
        """Set once the events of all agents of now are read."""

    def stop(self) -> None:
        """End in good order: what is under way may end."""
        self._stop.set()

    async def run(self) -> None:
        """Post until `stop()`. Raises what ended it before."""
        await require_topics(self._bus, [CARDS.name])
        rules = WebhookRules(self._settings.webhook_hosts, self._bus.bootstrap_servers)
        async with WebhookSender(
            rules, keys=self._settings.signing_keys(), timeout_s=self._settings.timeout_s
        ) as sender:
            following_cards = self._watch(asyncio.create_task(self._follow(sender)))
            try:
                await self._stop.wait()
            except asyncio.CancelledError:
                for task in self._running:
                    task.cancel()
                raise
            finally:
                following_cards.cancel()
                for worker in self._workers.values():
                    worker.stop()
                await asyncio.gather(*self._running, return_exceptions=True)
        if self._failure is not None:
            raise self._failure

    async def _follow(self, sender: WebhookSender) -> None:
        async with following(self._bus, CARDS.name) as records:
            async for record in to_end(self._bus, CARDS.name):
                self._hear(record, sender)
            for worker in list(self._workers.values()):
                await worker.ready.wait()
            self.ready.set()
            async for record in records:
                self._hear(record, sender)

    def _hear(self, record: Record, sender: WebhookSender) -> None:
        """Begin to serve an agent whose card says that it takes configs."""
        agent = record.key or ""
        if agent in self._workers or (self._only and agent not in self._only):
            return
        try:
            card = Parse(record.value or b"{}", AgentCard(), ignore_unknown_fields=True)
        except (ParseError, ValueError, RecursionError):
            passed_over(record, InvalidRecord("bad_schema", "it is no AgentCard"))
            return
        if card.capabilities.push_notifications:
            targets = ConfigTargets(self._bus, agent)
            worker = self._workers[agent] = _delivery_worker(
                self._settings, self._bus, agent, f"push.{agent}", targets, sender
            )
            self._watch(asyncio.create_task(worker.run()))

    def _watch(self, task: "asyncio.Task[None]") -> "asyncio.Task[None]":
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = self._failure or error
            self._stop.set()


class WebhookSubscription:
    """Posts an agent's events to one webhook; its progress is kept by the name of a group.

    Args:
        settings: The dispatcher's.
        bus: Where Kafka is.
        agent: Whose events.
        group: Names the subscription. Several processes with one name share its work.
        target: Whom events are posted to.
        states: Names of the task states whose events are wanted; none for all events.
        begin: Where a new subscription begins.
    """

    def __init__(
        self,
        settings: PushSettings,
        bus: BusSettings,
        agent: str,
        *,
        group: str,
        target: PostTarget,
        states: Iterable[str] = (),
        begin: Start = at_beginning,
    ) -> None:
        self._rules = WebhookRules(settings.webhook_hosts, bus.bootstrap_servers)
        self._rules.check(target.url)
        self._sender = WebhookSender(
            self._rules, keys=settings.signing_keys(), timeout_s=settings.timeout_s
        )
        self._worker = _delivery_worker(
            settings,
            bus,
            agent,
            f"subscription.{group}.{agent}",
            SubscriptionTargets(target, states),
            self._sender,
            begin=begin,
        )
        self.ready = self._worker.ready
        """Set while every partition is read."""

    def stop(self) -> None:
        """End in good order: what is under way may end."""
        self._worker.stop()

    async def run(self) -> None:
        """Post until `stop()`. Raises what ended it before."""
        async with self._sender:
            await self._worker.run()


def _delivery_worker(
    settings: PushSettings,
    bus: BusSettings,
    agent: str,
    group: str,
    targets: PostTargets,
    sender: WebhookSender,
    *,
    begin: Start = at_beginning,
) -> DeliveryWorker:
    """A worker as the settings say."""
    return DeliveryWorker(
        bus,
        agent,
        group=group,
        targets=targets,
        sender=sender,
        limits=settings.limits,
        instance=settings.instance and f"{settings.instance}.{group}",
        begin=begin,
    )


async def run_push(settings: PushSettings, bus: BusSettings, agents: Iterable[str]) -> None:
    """Run a push dispatcher until SIGTERM or SIGINT."""
    await serve(PushDispatcher(settings, bus, agents), "push")


async def run_subscription(subscription: WebhookSubscription, name: str) -> None:
    """Run a subscription until SIGTERM or SIGINT."""
    await serve(subscription, f"subscription {name}")
