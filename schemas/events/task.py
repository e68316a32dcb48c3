"""What is asked for, and what judges say of it."""

from typing import Any

import msgspec
from msgspec import Raw

from odradek.schemas.events.event import Count, Event, Name, Purpose, Seconds, Size, null


class Timeouts(Event, frozen=True, kw_only=True):
    """Deadlines of a task, in seconds."""

    call_s: Seconds = 120.0
    """One model call."""
    attempt_s: Seconds = 600.0
    """One run of the agent."""
    seal_s: Seconds = 30.0
    """From the end of the run until the proxy has written EpisodeSealed."""
    reward_s: Seconds = 300.0
    """From EpisodeSealed until every wanted reward is there."""
    group_s: Seconds = 1800.0
    """From GroupOpened until the group is closed with what it has."""


class ChildReward(Event, frozen=True, kw_only=True):
    """What a child is worth: `own` times its own reward plus `parent` times its parent's worth."""

    own: float = 0.0
    parent: float = 1.0
    rewards: dict[str, float] = {}
    """Components of the child's own reward and their weights. Empty: any reward named "reward",
    weight 1. None is waited for where `own` is 0."""
    failure_reward: float = 0.0
    """The own reward of a child that failed or timed out."""


class Task(Event, frozen=True, tag="task", kw_only=True):
    """One task is one group: its samples are compared with each other."""

    task_id: Name
    agent: Name
    input: Raw = msgspec.field(default_factory=null)
    """Whatever the agent needs to know, as JSON."""
    item: str = ""
    """What the task was made from; the same in every epoch."""
    group_size: Size = 8
    purpose: Purpose = "train"
    rewards: dict[str, float] = {}
    """Wanted components and their weights. Empty: any reward named "reward", weight 1."""
    failure_reward: float | None = None
    """What a failed or timed-out episode counts as; None: 0. A weight below 0 needs a number."""
    timeouts: Timeouts = Timeouts()
    sampling: dict[str, Any] = {}
    """Request fields that the proxy sets on each call, such as {"temperature": 0}."""
    model: str = ""
    """The model name that agents get; empty: the policy that the proxy serves."""
    answers: list[Any] = []
    """What the agent hears when it asks for input, one after the other: strings, or any JSON."""
    simulator: str = ""
    """An agent that plays the user: it answers what is asked once `answers` are used up."""
    children: dict[str, ChildReward] = {}
    """By the name of an agent that the task's agent asks: what its sequences are worth. Those of
    agents that are not named are worth what their parent's are."""
    repeats: Count = 0
    """How often it was published again before, because its group came out badly."""


class Reward(Event, frozen=True, tag="reward", kw_only=True):
    """One component's verdict on an episode. The first of a component wins."""

    episode_id: Name
    component: Name
    value: float
    source: Name
    explanation: str = ""
