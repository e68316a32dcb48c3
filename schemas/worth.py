"""What the runs of a task are worth to a trainer, as far as the task's own fields say. Pure.

A judge's rewards may be any numbers. Where a bound on them is needed, 0 to 1 is meant, as most
judges give.
"""

from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from odradek.schemas import sampling
from odradek.schemas.events import Task
from odradek.schemas.numbers import number, single

DEFAULT_COMPONENT: Final = "reward"
"""What a task waits for that names no component; its weight is 1."""
LONGEST: Final = 256
"""Characters of a component's name; no reward has a longer one."""
HEAVIEST: Final = 1e30
"""Of all weights of a task together; a sum of rewards beyond could be no float."""


class TaskFault(Struct, frozen=True):
    """Why a task is not taken: a short word for headers and counts, and a line for people."""

    reason: str
    detail: str


def weights(task: Task) -> dict[str, float]:
    """Components and their weights, the default one included. Raises NoNumber, NotFinite."""
    named = {name: number(weight, f"rewards.{name}") for name, weight in task.rewards.items()}
    return named or {DEFAULT_COMPONENT: 1.0}


def fault(task: Task) -> TaskFault | None:
    """Why nobody should carry a task out: it would teach the wrong thing, or never be rewarded."""
    if sum(map(abs, weights(task).values())) > HEAVIEST:
        return TaskFault(
            "bad_weight",
            f"the weights in rewards are too large: together they may be {HEAVIEST:g}, and rewards "
            "are only compared, so divide all of them by the same number",
        )
    if (wrong := _child_fault(task)) is not None:
        return wrong
    for name, weight in weights(task).items():
        if not 0 < len(name) <= LONGEST:
            return TaskFault(
                "bad_component",
                f"rewards names a component of {len(name)} characters, and no reward is called so: "
                f"give it a name of 1 to {LONGEST}",
            )
        if weight < 0 and task.purpose == "train" and task.failure_reward is None:
            return TaskFault(
                "no_failure_reward",
                f"rewards.{name} is {weight:g} and there is no failure_reward: a run that failed "
                "counts 0, more than one that completed at a cost. Add "
                f'"failure_reward": {min(_worst(task), 0.0):g} (or another number) to the task',
            )
    return None


def _child_fault(task: Task) -> TaskFault | None:
    """Why a rule for children's rewards cannot be followed."""
    for agent, rule in task.children.items():
        own = number(rule.own, f"children.{agent}.own")
        parent = number(rule.parent, f"children.{agent}.parent")
        of_own = [
            number(of, f"children.{agent}.rewards.{name}") for name, of in rule.rewards.items()
        ]
        if abs(own) + abs(parent) > HEAVIEST or sum(map(abs, of_own)) > HEAVIEST:
            return TaskFault(
                "bad_weight",
                f"the weights in children.{agent} are too large: together they may be {HEAVIEST:g}",
            )
        if any(not 0 < len(name) <= LONGEST for name in rule.rewards):
            return TaskFault(
                "bad_component",
                f"children.{agent}.rewards names a component that no reward is called: give it a "
                f"name of 1 to {LONGEST} characters",
            )
    return None


def doubts(task: Task) -> list[str]:
    """Why a training task may teach nothing, each in a line; none for an evaluation."""
    if task.purpose != "train":
        return []
    return [line for line in (_alone(task), _flat(task), _failing(task), *_drawn(task)) if line]


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


def _drawn(task: Task) -> list[str]:
    """Ways of sampling from which nothing is learned."""
    lines = [*_untrainable(task)]
    if task.sampling.get("seed") is not None and task.group_size > 1:
        lines.append("sampling.seed is set: all samples of a group draw the same numbers")
    return lines


def _untrainable(task: Task) -> Iterator[str]:
    """Why replies to such calls are refused, whatever the proxy's own `sampling` is."""
    fields = {name: single(value) for name, value in task.sampling.items()}
    temperature = fields.get("temperature")
    heat = sampling.number(temperature)
    if temperature is not None and (heat is None or not 0 <= heat < float("inf")):
        yield "sampling.temperature is no temperature: engines refuse the calls; give a number"
    elif heat is not None and heat < sampling.COLDEST:
        yield (
            f"sampling.temperature is {heat:g}: all samples of a group are alike, and below "
            f"{sampling.COLDEST:g} replies are refused"
        )
    elif heat is not None and heat > sampling.HOTTEST:
        yield f"sampling.temperature is {heat:g}: every token is as likely as any other"
    for name in fields:
        if sampling.alters(name, fields):
            yield (
                f"sampling.{name} alters what the policy samples from, so these replies are "
                "refused (`sampling`): leave it out of training tasks"
            )


def _best(task: Task) -> float:
    return sum(weight for weight in weights(task).values() if weight > 0)


def _worst(task: Task) -> float:
    return sum(weight for weight in weights(task).values() if weight < 0)
