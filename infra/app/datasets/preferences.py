"""Which episodes of the chosen batches become rows, and as what. Pure."""

import math
from collections.abc import Iterable, Iterator
from typing import Literal

from msgspec import Struct

from odradek.schemas.events import Pointer

Role = Literal["row", "chosen", "rejected"]


class WantedEpisode(Struct, frozen=True):
    """An episode whose words are wanted."""

    task_id: str
    reward: float
    role: Role = "row"
    pair: str = ""
    """Names the other one of the two that make a row together."""


class Wanted(Struct):
    """All episodes whose words are wanted, by id.

    Attributes:
        episodes: Those.
        equal: Groups whose rewards are all the same, so that nothing is better.
    """

    episodes: dict[str, WantedEpisode]
    equal: int = 0


def stated(reward: float) -> float | None:
    """A reward as a row has it: None for an imported episode that nobody has rewarded."""
    return None if math.isnan(reward) else reward


def each_episode(groups: Iterable[tuple[str, Iterable[Pointer]]]) -> Wanted:
    """Every episode is a row.

    Args:
        groups: Task ids and pointers of the chosen episodes.
    """
    wanted = Wanted({})
    for task_id, pointers in groups:
        for pointer in pointers:
            wanted.episodes[pointer.episode_id] = WantedEpisode(task_id, pointer.reward)
    return wanted


def best_and_worst(groups: Iterable[tuple[str, Iterable[Pointer]]]) -> Wanted:
    """Of each group the first episode with the highest reward, and the first with the lowest.

    A group that comes twice, as a replayed one does, makes rows once.
    """
    wanted = Wanted({})
    for task_id, pointers in groups:
        rewarded = [pointer for pointer in pointers if not math.isnan(pointer.reward)]
        ordered = sorted(rewarded, key=lambda pointer: (pointer.reward, pointer.sample))
        if not ordered or ordered[0].reward == ordered[-1].reward:
            wanted.equal += 1
            continue
        highest = ordered[-1].reward
        best = next(pointer for pointer in ordered if pointer.reward == highest)
        name = f"{best.episode_id}/{ordered[0].episode_id}"
        for pointer, role in _roles(best, ordered[0]):
            episode = WantedEpisode(task_id, pointer.reward, role, name)
            wanted.episodes.setdefault(pointer.episode_id, episode)
    return wanted


def _roles(best: Pointer, worst: Pointer) -> Iterator[tuple[Pointer, Role]]:
    yield best, "chosen"
    yield worst, "rejected"
