"""An agent's view of its episode: the task, the model's address, and rewards."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

import msgspec

from odradek.agents.errors import AskError, AskRefused
from odradek.schemas.numbers import Number, is_number, number

Scored = Number | Callable[[], Number]
"""A reward's value, or a function that is asked for it when the run is over."""


class UpstreamUnavailable(Exception):
    """Raise this where the model could not be reached: the attempt is repeated, not counted."""


class RolloutTask(msgspec.Struct, frozen=True, kw_only=True):
    """The task of an episode, as its agent sees it."""

    task_id: str = ""
    agent: str = ""
    input: Any = None
    """Whatever the task says, as plain Python values."""
    item: str = ""
    purpose: str = "train"
    group_size: int = 1
    rewards: dict[str, float] = {}
    """Wanted components and their weights."""
    sampling: dict[str, Any] = {}
    """What the proxy sets on each call."""


class PendingReward(msgspec.Struct, frozen=True, kw_only=True):
    """A reward that an agent gave and that is not yet published."""

    component: str
    value: Scored
    explanation: str = ""


class Ask(msgspec.Struct, frozen=True):
    """A message to an agent."""

    agent: str
    message: Any
    """A string, or what JSON can hold."""
    timeout_s: float | None = None
    """How long the agent has; None: as long as there is time."""


class Answer(msgspec.Struct, frozen=True):
    """What an agent answered."""

    agent: str
    value: Any
    """A string, data as Python values, a file as its fields; several parts as a list; or None."""
    task_id: str = ""
    """The A2A task, which is also the episode where `captured`."""
    captured: bool = False
    """Whether what the agent did is an episode in the log."""

    @property
    def text(self) -> str:
        """The answer if it is a string, else "". Data is in `value`."""
        return self.value if isinstance(self.value, str) else ""


class Asker(Protocol):
    """Asks other agents for one that plays."""

    async def ask(self, asked: Ask) -> Answer:
        """See `Rollout.ask`."""
        ...

    async def ask_all(self, asks: Iterable[Ask | tuple[str, Any]]) -> "list[Answer | AskError]":
        """See `Rollout.ask_all`."""
        ...


class Rollout:
    """One attempt at one sample of a task.

    Attributes:
        task: What is to be done; `task.input` is the task's JSON as Python values.
        base_url: Where the model is: give it to any OpenAI or Anthropic client.
        api_key: A token that is good for this episode only.
        model: The model name to ask for.
        episode_id: This attempt's id, which is also its A2A task id.
        sample: Which sample of the group this is, from 0.
        attempt: Counts the attempts at this sample, from 1.
        timeout_s: How long the run may take in all.
        traceparent: W3C trace context of the run, or None.
    """

    def __init__(
        self,
        *,
        task: RolloutTask,
        base_url: str,
        api_key: str,
        model: str,
        episode_id: str,
        sample: int = 0,
        attempt: int = 1,
        timeout_s: float = 600.0,
        traceparent: str | None = None,
        note: Callable[[str], Awaitable[None]] | None = None,
        asker: Asker | None = None,
    ) -> None:
        self.task = task
        self.base_url = base_url
        self.api_key = api_key
        self.model = model
        self.episode_id = episode_id
        self.sample = sample
        self.attempt = attempt
        self.timeout_s = timeout_s
        self.traceparent = traceparent
        self._note = note
        self._asker = asker
        self._rewards: dict[str, PendingReward] = {}

    def __repr__(self) -> str:
        return f"<Rollout {self.episode_id} of {self.task.agent}, attempt {self.attempt}>"

    @property
    def rewards(self) -> tuple[PendingReward, ...]:
        """The rewards given so far."""
        return tuple(self._rewards.values())

    def reward(self, component: str, value: Scored, explanation: str = "") -> None:
        """Say what this episode is worth in one component.

        The host publishes it when the run is over, before the episode is sealed. The first value
        of a component wins.

        Args:
            component: Its name, as in the task's `rewards`.
            value: A finite number (numpy's, a tensor of one element, a Decimal as well), or a
                function that returns one; it is called when the run is over, in the host's own
                event loop, so it should be quick: slow grading belongs in a reward service, which
                has processes for it. If it raises, there is no reward, never a number.
            explanation: For people.

        Raises:
            TypeError: The value is neither a number nor a function.
            ValueError: The value is not finite, or the component has no name.
        """
        if not component:
            raise ValueError("a reward's component needs a name")
        if is_number(value) or not callable(value):
            value = finite(component, value)
        self._rewards.setdefault(
            component, PendingReward(component=component, value=value, explanation=explanation)
        )

    async def ask(self, agent: str, message: Any, *, timeout_s: float | None = None) -> Answer:
        """Ask another agent and await its answer; what it does becomes part of this sample.

        Args:
            agent: Whom, by name.
            message: A string, or what JSON can hold.
            timeout_s: How long the agent has; None: as long as this run may still take.

        Raises:
            AskRefused: There is no such agent, or agents would ask each other in a circle.
            AskTimeout: No answer came in time.
            AskFailed: The agent failed, refused the message, or asks a question in return.
            AskLost: What it runs on was lost. Let it pass, and this attempt is repeated.
        """
        if self._asker is None:
            raise AskRefused(agent, "this run is on no bus: start it with `odradek agent`")
        return await self._asker.ask(Ask(agent, message, timeout_s))

    async def ask_all(self, asks: Iterable[Ask | tuple[str, Any]]) -> list[Answer | AskError]:
        """Ask several agents at once; an answer or an error for each, in the order of the asks.

        Args:
            asks: Each an `Ask`, or agent and message.
        """
        if self._asker is None:
            raise AskRefused("ask_all", "this run is on no bus: start it with `odradek agent`")
        return await self._asker.ask_all(asks)

    async def note(self, text: str) -> None:
        """Report progress to subscribers of the agent's events."""
        if self._note is not None:
            await self._note(text)


def finite(component: str, value: Any) -> float:
    """A reward's value as a float. Raises TypeError or ValueError."""
    return number(value, f"reward {component!r}")
