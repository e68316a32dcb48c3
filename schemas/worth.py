"""What the runs of a task are worth to a trainer, as far as the task's own fields say. Pure.

A judge's rewards may be any numbers. Where a bound on them is needed, 0 to 1 is meant, as most
judges give.
"""

from typing import Final

from msgspec import Struct

from odradek.schemas.events import Task
from odradek.schemas.numbers import number

DEFAULT_COMPONENT: Final = "reward"
"""What a task waits for that names no component; its weight is 1."""
LONGEST: Final = 256
"""Characters of a component's name; no reward has a longer one."""
GREEDY: Final = 0.05
"""Temperatures below are no sampling."""


class Fault(Struct, frozen=True):
    """Why a task is not taken: a short word for headers and counts, and a line for people."""

    reason: str
    detail: str


def weights(task: Task) -> dict[str, float]:
    """Components and their weights, the default one included. Raises NoNumber, NotFinite."""
    found = {name: number(of, f"rewards.{name}") for name, of in task.rewards.items()}
    return found or {DEFAULT_COMPONENT: 1.0}


def fault(task: Task) -> Fault | None:
    """Why nobody should carry a task out: it would teach the wrong thing, or never be rewarded."""
    for name, weight in weights(task).items():
        if not 0 < len(name) <= LONGEST:
            return Fault(
                "bad_component",
                f"rewards names a component of {len(name)} characters, and no reward is called so: "
                f"give it a name of 1 to {LONGEST}",
            )
        if weight < 0 and task.purpose == "train" and task.failure_reward is None:
            return Fault(
                "no_failure_reward",
                f"rewards.{name} is {weight:g} and there is no failure_reward: a run that failed "
                "counts 0, more than one that completed at a cost. Add "
                f'"failure_reward": {min(_worst(task), 0.0):g} (or another number) to the task',
            )
    return None


def doubts(task: Task) -> list[str]:
    """Why a training task may teach nothing, each in a line; none for an evaluation."""
    if task.purpose != "train":
        return []
    return [line for line in (_alone(task), _flat(task), _failing(task), *_alike(task)) if line]


def _alone(task: Task) -> str:
    if task.group_size > 1:
        return ""
    return (
        "group_size is 1: a sample is compared with the others of its group, so it teaches nothing"
    )


def _flat(task: Task) -> str:
    if any(weights(task).values()):
        return ""
    return "all weights in rewards are 0: every run is worth the same, so it teaches nothing"


def _failing(task: Task) -> str:
    failure = number(task.failure_reward or 0.0, "failure_reward")
    best = _best(task)
    if failure < best or not any(weights(task).values()):
        return ""
    return (
        f"a run that fails counts {failure:g} (failure_reward), and none that completes can count "
        f"more than {best:g} where rewards lie between 0 and 1: failing is taught"
    )


def _alike(task: Task) -> list[str]:
    """Ways of sampling in which the samples of a group come out equal."""
    found = []
    heat = task.sampling.get("temperature")
    if isinstance(heat, int | float) and heat < GREEDY:
        found.append(f"sampling.temperature is {heat:g}: all samples of a group are alike")
    if task.sampling.get("seed") is not None and task.group_size > 1:
        found.append("sampling.seed is set: all samples of a group draw the same numbers")
    return found


def _best(task: Task) -> float:
    return sum(weight for weight in weights(task).values() if weight > 0)


def _worst(task: Task) -> float:
    return sum(weight for weight in weights(task).values() if weight < 0)
