"""One attempt at one request: its state, its ids and what came of it."""

import asyncio
from enum import StrEnum
from typing import Any, Final, Protocol

import msgspec

from odradek.agents.binding.headers import RequestHeaders
from odradek.agents.binding.requests import SampleAddress, Send
from odradek.agents.errors import IllegalTransition
from odradek.agents.rollout import Asker, Rollout
from odradek.infra.bus import TransactionalWriter
from odradek.schemas.events import Outcome


class Fail(Protocol):
    """Called with an error of the log. With a writer only its partition is lost, else all are."""

    def __call__(self, error: BaseException, writer: TransactionalWriter | None = None) -> None:
        """Give the partition up, or end the process."""
        ...


class ChildAsker(Asker, Protocol):
    """Asks other agents, and knows which episodes came of it."""

    async def aclose(self) -> tuple[str, ...]:
        """Call off what has no answer yet; return the episodes whose replies the agent had."""
        ...


class AttemptState(StrEnum):
    """Where a run stands."""

    WAITING = "waiting"
    """For a free place."""
    OPENING = "opening"
    """The log is given its snapshot and its EpisodeOpened."""
    PLAYING = "playing"
    """The agent runs."""
    ASKING = "asking"
    """The agent waits for its client's next message."""
    ENDING = "ending"
    """Rewards, seal, terminal status."""
    ENDED = "ended"
    """Nothing is left to do."""
    LOST = "lost"
    """Another host owns the partition: nothing of this run may be written any more."""


NEXT: Final[dict[AttemptState, frozenset[AttemptState]]] = {
    AttemptState.WAITING: frozenset({AttemptState.OPENING, AttemptState.LOST}),
    AttemptState.OPENING: frozenset({AttemptState.PLAYING, AttemptState.LOST}),
    AttemptState.PLAYING: frozenset({AttemptState.ASKING, AttemptState.ENDING, AttemptState.LOST}),
    AttemptState.ASKING: frozenset({AttemptState.PLAYING, AttemptState.ENDING, AttemptState.LOST}),
    AttemptState.ENDING: frozenset({AttemptState.ENDED, AttemptState.LOST}),
    AttemptState.ENDED: frozenset(),
    AttemptState.LOST: frozenset(),
}
"""The legal transitions."""


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended."""

    outcome: Outcome
    error: str = ""
    signalled: bool = False
    """A program ended of a signal that may have been for its host as well."""
    children: tuple[str, ...] = ()
    """Episodes of other agents whose replies its agent had."""

    @property
    def is_infrastructure(self) -> bool:
        """Whether something other than the agent ended it, so that the attempt is given up."""
        return self.outcome in {Outcome.HOST_LOST, Outcome.UPSTREAM_FAILED, Outcome.INCOMPLETE}


class Attempt:
    """One attempt.

    Attributes:
        send: The request.
        called: What its headers say.
        sample: Which sample of which task; of a message that belongs to no task, one made up.
        partition: Of the request, and so of everything under this episode's id.
        offset: Of the request.
        episode_id: Of this attempt; also the A2A task id.
        rollout: What the agent sees; made when the run opens.
        verdict: How it ended, once it has.
        task: The A2A task as it stood at the end.
        retry: Another attempt follows this one.
        called_off: Set when it need not wait any more, for a free place or for a message.
        opened: Set when its task is in the log, or never will be.
        asks: Whether its agent waits for its client's next message.
        waits: Whether it was taken over as it asked: there is nothing to play before the next
            message.
        adopted: Whether a predecessor opened it.
        ends_at: When its time is over, by the event loop's clock; None before it plays.
        answered: Whether its client has its reply.
        settled: Set while its client has something to be answered with.
        asker: Asks other agents on its behalf; None for an agent that cannot.
        captured: Whether it is an episode.
        push: The push notification config that came with its message; None for none.
        message: What its agent answered with, where it did so by a bare message and nothing else.
        last_message: The message of the terminal status that its agent gave, if it gave one.
        heard: Ids of the messages that its agent got.
        over: Set when the SDK knows of its end, or cannot hear of it.
        closed: Set when nothing of it is under way.
    """

    def __init__(
        self,
        *,
        send: Send,
        called: RequestHeaders,
        sample: SampleAddress,
        partition: int,
        offset: int,
        episode_id: str,
        context_id: str,
        attempt: int,
        max_attempts: int,
        writer: TransactionalWriter,
    ) -> None:
        self.send = send
        self.called = called
        self.sample = sample
        self.partition = partition
        self.offset = offset
        self.episode_id = episode_id
        self.context_id = context_id
        self.attempt = attempt
        self.max_attempts = max_attempts
        self.writer = writer
        self.rollout: Rollout | None = None
        self.verdict: Ending | None = None
        self.retry = False
        self.task: Any = None
        self.stopped: Ending | None = None
        self.agent: asyncio.Task[None] | None = None
        self.opened = asyncio.Event()
        self.asks = False
        self.waits = False
        self.adopted = False
        self.settled = asyncio.Event()
        self.asker: ChildAsker | None = None
        self.captured = False
        self.push: Any = None
        self.message: Any = None
        self.last_message: Any = None
        self.ends_at: float | None = None
        self.answered = False
        self.heard = {send.message_id}
        self.called_off = asyncio.Event()
        self.over = asyncio.Event()
        self.closed = asyncio.Event()
        self._state = AttemptState.WAITING

    @property
    def state(self) -> AttemptState:
        """Its state."""
        return self._state

    @property
    def lost(self) -> bool:
        """Whether another host owns it now."""
        return self._state is AttemptState.LOST

    @property
    def goes_on(self) -> bool:
        """Whether its task may outlive its host: that of a plain message may, a sample's not."""
        return self.send.sample is None

    @property
    def result(self) -> Any:
        """What its client gets: a Message or the Task; None before the end.

        A parent always gets the Task, which says what the child was.
        """
        return self.task if self.sample.parent else self.message or self.task

    @property
    def last(self) -> bool:
        """Whether no further attempt would follow this one."""
        return self.attempt >= self.max_attempts

    def go(self, state: AttemptState) -> None:
        """Change state. Raises IllegalTransition."""
        if state not in NEXT[self._state]:
            raise IllegalTransition(f"run {self.episode_id}: from {self._state} to {state}")
        self._state = state

    def stop(self, outcome: Outcome, error: str = "") -> bool:
        """End the agent early, with this outcome; False if it is too late for that."""
        if (
            self._state in {AttemptState.ENDING, AttemptState.ENDED, AttemptState.LOST}
            or self.stopped is not None
        ):
            return False
        self.stopped = Ending(outcome=outcome, error=error)
        self.called_off.set()
        if self.agent is not None:
            self.agent.cancel()
        return True

    def lose(self) -> None:
        """Another host owns it: kill the agent and write nothing more."""
        if self._state in {AttemptState.ENDED, AttemptState.LOST}:
            return
        self.stopped = Ending(outcome=Outcome.HOST_LOST, error="the partition moved")
        self._state = AttemptState.LOST
        self.called_off.set()
        if self.agent is not None:
            self.agent.cancel()
