"""The agent host: an A2A server whose transport is Kafka.

Reads `a2a.requests.<agent>` as a static member of a group, hands each request to its server, and
commits the low-water mark of what is unfinished.
"""

import asyncio
import logging
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError
from aiokafka.structs import OffsetAndMetadata

from odradek.agents.attempt.attempt import AttemptState
from odradek.agents.attempt.seal import ProxySealer, Sealer
from odradek.agents.cards.registry import publish_card
from odradek.agents.host.assemble import assemble
from odradek.agents.host.cards import OwnCards
from odradek.agents.host.tasks.index import recall
from odradek.agents.host.tasks.offsets import HostOffsets
from odradek.agents.host.tasks.partition import RequestPartition
from odradek.agents.runners.http import HttpRunner
from odradek.agents.settings import AgentSettings
from odradek.agents.trust.settings import TrustSettings
from odradek.agents.trust.verifier import RequestVerifier
from odradek.infra.bus import (
    PATIENT_S,
    BusSettings,
    FencedWriter,
    KafkaAppender,
    PartitionGroup,
    TransactionalWriter,
    close,
    commit_offsets,
    consumer,
    ensure_topics,
    record_of,
    require_topics,
    start,
)
from odradek.infra.errors import PartitionLost
from odradek.infra.runtime import metrics
from odradek.infra.runtime.crash_points import crash_point
from odradek.infra.runtime.episode_tokens import TokenSettings
from odradek.infra.runtime.process import serve
from odradek.schemas.events import Outcome
from odradek.schemas.topics import (
    A2A_EVENTS,
    A2A_REQUESTS,
    AGENT_TOPICS,
    CARDS,
    REWARDS,
    TURNS,
    agent_topic,
)

logger = logging.getLogger("odradek")

POLL_MS: Final = 100
QUEUE: Final = 1000
"""How many requests of a partition may wait before that partition is paused."""
COMMIT_S: Final = 0.25
DOUBT_S: Final = 1.0
"""How long after a program's end by a signal ours may come, if one signal was for both."""
LAST_S: Final = 15.0
"""How long runs may take to end once they were given up."""


class Host:
    """Runs one agent.

    Args:
        settings: The host's.
        bus: Where Kafka is.
        executor: The agent, as an A2A AgentExecutor (see `odradek.agents.runners`).
        tokens: Keys of episode tokens, shared with the proxy.
        sealer: Ends episodes; the proxy's if not given.
        trust: Keys of signed requests; the environment's if not given.
    """

    def __init__(
        self,
        settings: AgentSettings,
        bus: BusSettings,
        executor: Any,
        *,
        tokens: TokenSettings | None = None,
        sealer: Sealer | None = None,
        trust: TrustSettings | None = None,
    ) -> None:
        self._settings = settings
        self._bus = bus
        self._inner = executor
        self._keys = (tokens or TokenSettings()).secrets() if settings.training else []
        self._trust = trust
        self._verifier = RequestVerifier.of(settings.name, bus, trust)
        self._cards = OwnCards.of(settings, prefix=bus.topic_prefix)
        self._sealer: Sealer | None = None
        if settings.training:
            self._sealer = sealer or ProxySealer(
                settings.proxy_url, self._keys, agent=settings.name
            )
        self._topic = bus.topic(agent_topic(A2A_REQUESTS, settings.name))
        self._source = f"/agents/{settings.name}/{settings.instance or uuid.uuid4().hex[:8]}"
        self._owned: dict[int, RequestPartition] = {}
        self._letting_go: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None
        self._reader = consumer(
            bus, group=f"agent.{settings.name}", instance=settings.instance, sticky=True
        )
        self._offsets = HostOffsets(self._reader, bus.topic(agent_topic(A2A_EVENTS, settings.name)))
        self._group = PartitionGroup(self._topic, self, self.fail)
        metrics.gauge(metrics.ATTEMPTS_ACTIVE, self._attempts)
        self.ready = self._group.settled
        """Set while the host serves every partition that is its own."""

    def _attempts(self) -> list[tuple[float, tuple[str, str]]]:
        name, owned = self._settings.name, list(self._owned.values())
        waiting = sum(each.waiting for each in owned)
        playing = sum(len(each.runs) for each in owned) - waiting
        return [(playing, (name, "playing")), (waiting, (name, "waiting"))]

    def stop(self) -> None:
        """End in good order: no new runs, a short grace for those that go on."""
        self._stop.set()

    async def _ending(self, patient: bool) -> bool:
        """Whether the host ends now or, if `patient`, within a moment."""
        if patient:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), DOUBT_S)
        if self._stop.is_set():
            self._server.stopping = True  # the next attempt is for another host
        return self._stop.is_set()

    def fail(self, error: BaseException, writer: TransactionalWriter | None = None) -> None:
        """Give a partition up that went to another host; else end the process.

        After any other error nobody knows what the log holds.
        """
        if isinstance(error, PartitionLost) and writer is not None:
            # A run of an earlier ownership may hear late that it is over, and the partition may be
            # ours again by then.
            for number, owned in list(self._owned.items()):
                if owned.writer is writer:
                    self.lose(number)
                    self._group.doubt(number, error)
            return
        if self._failure is None:
            self._failure = error
        self._stop.set()

    async def run(self) -> None:
        """Serve until `stop()`. Raises the error that ended it before."""
        try:
            await self._run()
        finally:
            if self._sealer is not None:
                await self._sealer.aclose()
            await close(self._reader)
            if isinstance(self._inner, HttpRunner):
                await self._inner.aclose()

    async def _run(self) -> None:
        await self._prepare()
        self._appender = await KafkaAppender.connect(self._bus, timeout_s=PATIENT_S)
        try:
            parts = assemble(
                self._settings,
                self._bus,
                self._inner,
                appender=self._appender,
                offsets=self._offsets,
                sealer=self._sealer,
                keys=self._keys,
                verifier=self._verifier,
                cards=self._cards,
                trust=self._trust,
                source=self._source,
                fail=self.fail,
                ending=self._ending,
            )
            self._server, self._recovery, self._push, self._line = parts
            await publish_card(self._appender, self._settings.name, self._cards.public)
            self._group.subscribe(self._reader)
            await start(self._reader, self._bus)
            try:
                await self._serve()
                await self._wind_down()
            finally:
                await self._let_all_go()
                await self._line.aclose()
        finally:
            await self._appender.aclose()
        if self._failure is not None:
            raise self._failure

    async def _prepare(self) -> None:
        required = [(agent_topic(row, self._settings.name), row) for row in AGENT_TOPICS]
        await ensure_topics(self._bus, required)
        training = [TURNS.name, REWARDS.name] if self._settings.training else []
        await require_topics(self._bus, [*training, CARDS.name])

    # -- reading

    async def _serve(self) -> None:
        committing = asyncio.create_task(self._commit_often())
        try:
            while not self._stop.is_set():
                batches = await self._reader.getmany(timeout_ms=POLL_MS)
                for where, messages in batches.items():
                    self._receive(where, messages)
                self._throttle()
        finally:
            committing.cancel()
            await asyncio.wait({committing})

    def _receive(self, where: TopicPartition, messages: Sequence[Any]) -> None:
        owned = self._owned.get(where.partition)
        topic = self._bus.bare(where.topic)
        metrics.count(metrics.CONSUMED, len(messages), topic, f"agent.{self._settings.name}")
        for message in messages:
            # What was fetched before the partition was ours, or before a seek, comes again.
            if owned is None or owned.lost or message.offset < owned.backlog.next:
                continue
            owned.backlog.take(message.offset)
            self._server.receive(owned, record_of(message, self._bus))

    def _throttle(self) -> None:
        """Pause partitions whose queue is full; their control operations wait that long, too."""
        for number, owned in self._owned.items():
            busy = owned.paused or owned.backlog.unfinished >= QUEUE
            waiting = owned.waiting if busy else 0
            full = waiting >= QUEUE
            where = TopicPartition(self._topic, number)
            try:
                if full and not owned.paused:
                    self._reader.pause(where)
                    owned.paused = True
                elif owned.paused and waiting < QUEUE // 2 + 1:
                    self._reader.resume(where)
                    owned.paused = False
            except IllegalStateError:
                continue  # a rebalance goes on; the next assignment says whose it is

    async def _commit_often(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_S)
            await self.commit()

    async def commit(self) -> None:
        """See `PartitionOwner`: commit the low-water marks of the partitions that are ours.

        The metadata say which requests behind the mark are unfinished. They are for whoever asks
        how far we are behind: a successor reads from the mark on, and finds snapshots.
        """
        marks = {
            TopicPartition(self._topic, number): owned.mark
            for number, owned in self._owned.items()
            if not owned.lost and owned.mark != owned.committed
        }
        if not marks:
            return
        offsets = {where: OffsetAndMetadata(*mark) for where, mark in marks.items()}
        # If we die above this line, what is finished comes again and finds its snapshots. Below it,
        # the next owner begins at the oldest request that is not.
        crash_point("offsets_before_commit")
        if not await commit_offsets(self._reader, offsets, self.fail):
            return
        crash_point("offsets_committed")
        for where, mark in marks.items():
            owned = self._owned.get(where.partition)
            if owned is not None and mark[0] >= owned.committed[0]:
                owned.committed = mark
                owned.memory.settle(mark[0])

    # -- partitions

    def keep(self, number: int) -> int | None:
        """See `PartitionOwner`."""
        owned = self._owned.get(number)
        if owned is None:
            return None
        owned.paused = False  # a new assignment begins unpaused
        return owned.backlog.next

    async def take(self, number: int) -> int:
        """See `PartitionOwner`: fence the predecessor, read its snapshots, find the position."""
        name = self._settings.name
        where = TopicPartition(self._topic, number)
        writer = FencedWriter(self._bus, f"agent.{name}", number)
        await writer.start()
        async with AsyncExitStack() as failed:
            # Cancelled as well: an open producer would fence its successor.
            failed.push_async_callback(writer.aclose)
            count = len(self._reader.partitions_for_topic(self._topic) or ())
            position = await self._offsets.committed(where)
            memory = await recall(self._bus, name, number, position, self._offsets)
            owned = RequestPartition(number, count, writer, memory, position)
            owned.push = await self._push.recall(number)
            strays = await self._recovery.strays(owned, position)
            failed.pop_all()
        if strays:
            logger.warning("%s[%d]: ended %d stray tasks", name, number, strays)
        self._owned[number] = owned
        return position

    def lose(self, number: int) -> None:
        """See `PartitionOwner`: kill the partition's runs and write nothing more."""
        owned = self._owned.pop(number)
        logger.warning("%s[%d] went to another host", self._settings.name, number)
        owned.lose()
        task = asyncio.create_task(owned.aclose())
        self._letting_go.add(task)
        task.add_done_callback(self._letting_go.discard)

    # -- the end

    async def _wind_down(self) -> None:
        """Give runs a short grace, then give them up for another attempt elsewhere."""
        self._server.stopping = True
        for owned in self._owned.values():
            for run in list(owned.runs.values()):
                if run.state is AttemptState.WAITING or (run.asks and run.goes_on):
                    run.lose()
        if self._failure is None:
            await self._quiet(self._settings.grace_s)
            for owned in self._owned.values():
                for run in list(owned.runs.values()):
                    if run.goes_on and self._settings.orphans == "restart":
                        run.lose()
                    run.stop(Outcome.HOST_LOST, "its host was told to end")
            await self._quiet(LAST_S)
            await self.commit()

    async def _quiet(self, wait_s: float) -> None:
        tasks = [task for owned in self._owned.values() for task in owned.tasks]
        if tasks:
            await asyncio.wait(tasks, timeout=wait_s)

    async def _let_all_go(self) -> None:
        await self._group.aclose()
        for owned in self._owned.values():
            owned.lose()
        await asyncio.gather(
            *(owned.aclose() for owned in self._owned.values()),
            *self._letting_go,
            return_exceptions=True,
        )
        self._owned.clear()


async def run(settings: AgentSettings, bus: BusSettings, executor: Any) -> None:
    """Run a host until SIGTERM or SIGINT."""
    await serve(Host(settings, bus, executor), f"agent {settings.name}")
