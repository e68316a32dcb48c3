"""How an agent that plays asks others: each becomes a child of its episode.

A child's message id is on its parent's partition, so are its attempts, and so one stage reads both
stories in one order. What bounds a child: the asker's own time, a chain of at most `DEPTH` agents,
nobody twice in it, and `MOST` children of one parent.
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

import msgspec
from a2a.client.errors import A2AClientTimeoutError
from a2a.types import CancelTaskRequest
from a2a.utils.errors import A2AError

from odradek.agents.attempt.attempt import Attempt
from odradek.agents.binding.headers import RequestHeaders
from odradek.agents.binding.operations import CANCEL
from odradek.agents.binding.requests import LARGEST, SampleAddress, ask_value
from odradek.agents.client.ask import exchange, fan_out
from odradek.agents.client.connection import KafkaConnection
from odradek.agents.errors import AskError, AskFailed, AskLost, AskRefused
from odradek.agents.rollout import Answer, Ask
from odradek.agents.settings import AgentSettings
from odradek.agents.trust.settings import TrustSettings
from odradek.infra.bus import BusSettings, require_topics
from odradek.infra.errors import BusError, ProjectError, TopicMissing
from odradek.schemas import ids
from odradek.schemas.errors import UnknownTopic
from odradek.schemas.events import ChildReward
from odradek.schemas.topics import A2A_REQUESTS, agent_topic

GROUP: Final = "agents"
"""Names the topic on which hosts hear what other agents answered, `a2a.replies.agents`."""
DEPTH: Final = 4
"""Agents in a chain of who asked whom: each waits for the next, and holds its place meanwhile."""
MOST: Final = 256
"""Children of one parent: they are one record."""
GRACE_S: Final = 10.0
"""How long after its time an agent's reply may come: it is ended, judged and sealed by then."""
CANCEL_S: Final = 10.0
BY_PARENT: Final = ChildReward()
"""What a child is worth whose agent the task does not name: what its parent is."""


class AgentLine:
    """A host's own place on the bus as a client of agents; there from the first ask on.

    Args:
        bus: Where Kafka is.
        trust: The key by which it signs its requests; the environment's if not given.
    """

    def __init__(self, bus: BusSettings, trust: TrustSettings | None = None) -> None:
        self.bus = bus
        self._trust = trust
        self._opening: asyncio.Task[KafkaConnection] | None = None
        self._served: set[str] = set()
        self._cancelling: set[asyncio.Task[None]] = set()

    async def to(self, agent: str) -> KafkaConnection:
        """The connection, on which an agent can be asked. Raises AskRefused, BusError."""
        if agent not in self._served:
            await self._require(agent)
            self._served.add(agent)
        if self._opening is None or (self._opening.done() and self._opening.exception()):
            self._opening = asyncio.create_task(self._open())
        try:
            # For all runs: the one that asked first may be cancelled meanwhile.
            return await asyncio.shield(self._opening)
        except ProjectError as error:
            raise AskRefused(agent, str(error)) from None

    async def _open(self) -> KafkaConnection:
        connection = KafkaConnection(self.bus, group=GROUP, trust=self._trust)
        await connection.start()
        return connection

    async def _require(self, agent: str) -> None:
        try:
            await require_topics(self.bus, [agent_topic(A2A_REQUESTS, agent)])
        except (UnknownTopic, TopicMissing):
            raise AskRefused(
                agent, f"there is no such agent: start `odradek agent --name {agent}`"
            ) from None

    def cancel(self, agent: str, attempts: Iterable[str]) -> None:
        """Have an agent's task ended, whichever of its attempts goes on; nobody waits for that."""
        task = asyncio.create_task(self._cancel(agent, attempts))
        self._cancelling.add(task)
        task.add_done_callback(self._cancelling.discard)

    async def _cancel(self, agent: str, attempts: Iterable[str]) -> None:
        connection = await self.to(agent)
        called = RequestHeaders(operation=CANCEL)
        for task_id in attempts:
            # An attempt that is over, or was never begun, is no reason not to try the next one.
            with suppress(A2AError, A2AClientTimeoutError, BusError):
                await connection.call(
                    agent, called, CancelTaskRequest(id=task_id), key=task_id, timeout_s=CANCEL_S
                )
                return

    async def aclose(self) -> None:
        """Disconnect; cancellations under way have a moment."""
        if self._cancelling:
            await asyncio.wait(self._cancelling, timeout=1.0)
        for task in self._cancelling:
            task.cancel()
        if self._opening is not None:
            await asyncio.wait({self._opening})
            if not self._opening.exception():
                await self._opening.result().aclose()


class Children:
    """Asks for one attempt; implements `ChildAsker`.

    Args:
        line: The host's.
        settings: The host's.
        run: The parent.
        partitions: Of the installation's topics.
    """

    def __init__(
        self, line: AgentLine, settings: AgentSettings, run: Attempt, *, partitions: int
    ) -> None:
        self._line = line
        self._settings = settings
        self._run = run
        self._partitions = partitions
        self._count = 0
        self._answered: list[str] = []
        self._asking: set[asyncio.Task[Any]] = set()

    async def ask(self, asked: Ask) -> Answer:
        """See `Rollout.ask`."""
        # A task of its own, so that one that nobody awaits any more ends with its parent.
        asking = asyncio.create_task(self._ask(asked))
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            asking.cancel()
            raise

    async def ask_all(self, asks: Iterable[Ask | tuple[str, Any]]) -> list[Answer | AskError]:
        """See `Rollout.ask_all`."""
        return await fan_out(self.ask, asks)

    async def aclose(self) -> tuple[str, ...]:
        """See `ChildAsker`."""
        asking = list(self._asking)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        return tuple(self._answered)

    async def _ask(self, asked: Ask) -> Answer:
        agent = asked.agent
        number = self._admit(agent)
        wait_s = self._time(asked)
        connection = await self._line.to(agent)
        message = ids.child_message_id(self._run.episode_id, number, partitions=self._partitions)
        value = ask_value(message, asked.message, self._address(agent, wait_s))
        if len(value) > LARGEST:
            raise AskRefused(agent, f"a message of {len(value)} bytes, at most {LARGEST}")
        over = False
        try:
            answer = await exchange(
                connection,
                agent,
                value,
                key=message,
                timeout_s=wait_s,
                grace_s=GRACE_S,
                traceparent=self._run.called.traceparent,
            )
            over = True
        except (AskFailed, AskLost) as error:
            over = True
            self._note(error.episode_id)
            raise
        finally:
            if not over:  # cancelled, or out of time: whatever goes on there is for nobody
                self._line.cancel(agent, self._attempts(message))
        self._note(answer.task_id if answer.captured else "")
        return answer

    def _note(self, episode_id: str) -> None:
        if episode_id:
            self._answered.append(episode_id)

    def _admit(self, agent: str) -> int:
        """The number of a new child. Raises AskRefused."""
        chain = self._chain
        if agent in chain:
            path = " → ".join((*chain, agent))
            raise AskRefused(agent, f"it waits for this answer itself: {path}")
        if len(chain) >= DEPTH:
            raise AskRefused(agent, f"{' → '.join(chain)} are {DEPTH} agents in a row, the most")
        if self._count >= MOST:
            raise AskRefused(agent, f"this run has asked {MOST} times, which is the most")
        self._count += 1
        return self._count - 1

    @property
    def _chain(self) -> tuple[str, ...]:
        return (*self._run.sample.agents, self._settings.name)

    def _time(self, asked: Ask) -> float:
        """How long the agent has: what it is given, and no longer than its parent."""
        left = (self._run.ends_at or 0.0) - asyncio.get_running_loop().time()
        return max(0.0, left if asked.timeout_s is None else min(left, asked.timeout_s))

    def _address(self, agent: str, wait_s: float) -> SampleAddress | None:
        """Where the child belongs; nowhere if its parent is no episode."""
        if not self._run.captured:
            return None
        sample = self._run.sample
        rule = sample.children.get(agent, BY_PARENT)
        return msgspec.structs.replace(
            sample,
            rewards=rule.rewards,
            failure_reward=rule.failure_reward,
            timeouts=msgspec.structs.replace(sample.timeouts, attempt_s=wait_s),
            answers=[],
            simulator="",
            parent=self._run.episode_id,
            agents=self._chain,
            own_weight=rule.own,
            parent_weight=rule.parent,
        )

    def _attempts(self, message: str) -> list[str]:
        most = self._run.sample.max_attempts or self._settings.max_attempts
        home = ids.partition_for(message, self._partitions)
        return [
            ids.episode_id(message, attempt, partition=home, partitions=self._partitions)
            for attempt in range(1, most + 1)
        ]
