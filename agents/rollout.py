"""An agent's view of its episode: the task, the model's address, and rewards."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

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

    async def note(self, text: str) -> None:
        """Report progress to subscribers of the agent's events."""
        if self._note is not None:
            await self._note(text)


def finite(component: str, value: Any) -> float:
    """A reward's value as a float. Raises TypeError or ValueError."""
    return number(value, f"reward {component!r}")
