"""Who is compared with whom in a group: samples with samples, children with children. Pure numpy.

A child that is worth what its sample is worth has no comparison of its own. One with a worth of its
own is compared with the other children of its agent: roles differ in what they can reach, so a
baseline over all of them would reward whoever has the easier part.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from odradek.schemas.events import Batch, ChildEpisode, Episode, Pointer

Numbers = npt.NDArray[np.float64]
Compare = Callable[[Numbers, Numbers], Numbers]
"""Rewards and sampled tokens of those who are compared, shape (n,) each, to their advantages."""


class Worth(NamedTuple):
    """What a sample or a child is worth, and how much better that is than the others."""

    reward: float
    advantage: float


class _Member(NamedTuple):
    """One of those who are compared: its id, its reward, and its tokens (-1: not known)."""

    name: str
    reward: float
    tokens: int


def worths(
    batch: Batch, episodes: Iterable[tuple[Pointer, Episode]], compare: Compare
) -> dict[str, Worth]:
    """Rewards and advantages by episode id, of each sample of the batch and of each child.

    Rewards are those that the batch states: re-scoring changes what a child is worth by its
    sample's share of it. A record that could not be read has no children that anybody knows of, so
    those who were read are compared among themselves.

    Args:
        batch: The group.
        episodes: Pointer and episode of each sample that was found.
        compare: Makes advantages of those who are compared.
    """
    episodes = tuple(episodes)
    tokens = {pointer.episode_id: _tokens(episode) for pointer, episode in episodes}
    samples = [
        _Member(pointer.episode_id, pointer.reward, tokens.get(pointer.episode_id, -1))
        for pointer in batch.episodes
    ]
    worth = dict(_among(samples, compare))
    pools: dict[str, list[_Member]] = {}
    for pointer, episode in episodes:
        for child in episode.children:
            if child.reward is None:
                continue
            if not child.own and child.share == 1.0:
                worth[child.episode_id] = worth[pointer.episode_id]
            else:
                pools.setdefault(child.agent, []).append(_member(child, pointer, episode))
    for pool in pools.values():
        worth.update(_among(pool, compare))
    return worth


def _member(child: ChildEpisode, pointer: Pointer, episode: Episode) -> _Member:
    reward = child.reward or 0.0
    if child.share and episode.reward is not None:
        reward += child.share * (pointer.reward - episode.reward)
    return _Member(child.episode_id, reward, _tokens(episode, child.episode_id))


def _among(members: list[_Member], compare: Compare) -> Iterator[tuple[str, Worth]]:
    rewards = np.array([member.reward for member in members], dtype=np.float64)
    tokens = np.array([member.tokens for member in members], dtype=np.float64)
    for member, advantage in zip(members, compare(rewards, tokens).tolist(), strict=True):
        yield member.name, Worth(member.reward, float(advantage))


def _tokens(episode: Episode, child: str = "") -> int:
    """How many tokens were sampled in an episode, or for one of its children."""
    return sum(
        span.end - span.start
        for sequence in episode.sequences
        for span in sequence.spans
        if not child or sequence.child == child
    )
