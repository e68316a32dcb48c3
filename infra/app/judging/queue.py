"""Which episodes a person judges next. Pure: the same log gives the same order.

A blind order follows from the ids alone, so neither time nor outcome, agent nor sample shows in it.
What a person has judged is left out, so whoever comes back goes on where they ended.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from odradek.infra.bus import RecordAddress
from odradek.schemas.events import Conversation, Outcome, Reward
from odradek.streams.stages.episode import DEFAULT_REWARDS


class Candidate(Struct, frozen=True):
    """A conversation that may be judged."""

    at: RecordAddress
    """Of its record on `rl.conversations.v1`."""
    episode_id: str
    task_id: str


class JudgedPair(Struct, frozen=True):
    """Two episodes of a task, as a person sees them beside each other."""

    left: Candidate
    right: Candidate


def wants(conversation: Conversation, component: str, *, everything: bool = False) -> bool:
    """Whether a reward of a component changes what an episode is worth.

    It must have completed, and its task must ask for the component; a child's reward is its
    parent's affair.

    Args:
        conversation: Of the episode.
        component: Which.
        everything: Whether the task need not ask for it.
    """
    asked = conversation.reward_components or tuple(DEFAULT_REWARDS)
    return (
        conversation.outcome is Outcome.COMPLETED
        and not conversation.parent
        and (everything or component in asked)
    )


def judged(rewards: Iterable[Reward], source: str, component: str) -> frozenset[str]:
    """The episodes that a source has judged."""
    return frozenset(
        reward.episode_id
        for reward in rewards
        if reward.source == source and reward.component == component
    )


def queue(
    candidates: Iterable[Candidate], done: frozenset[str], *, source: str, blind: bool = False
) -> list[Candidate]:
    """Those that are left, each once, in the order of the log or in a blind one.

    Args:
        candidates: In the order of the log.
        done: Ids of episodes that are judged.
        source: Whose queue it is: each person has a blind order of their own.
        blind: Whether the order must say nothing.
    """
    left = list(_left(candidates, done))
    return sorted(left, key=lambda one: _rank(source, one.episode_id)) if blind else left


def pairs(
    candidates: Iterable[Candidate], done: frozenset[str], *, source: str
) -> list[JudgedPair]:
    """Two and two episodes of one task, none twice, in a blind order; sides are drawn as well.

    An episode that is left over waits for another one.

    Args:
        candidates: In any order.
        done: Ids of episodes that are judged.
        source: Whose queue it is.
    """
    tasks: dict[str, list[Candidate]] = {}
    for one in _left(candidates, done):
        tasks.setdefault(one.task_id, []).append(one)
    found: list[JudgedPair] = []
    for members in tasks.values():
        ranked = sorted(members, key=lambda one: _rank(source, one.episode_id))
        found += [JudgedPair(*_sides(source, two)) for two in _two_and_two(ranked)]
    return sorted(found, key=lambda pair: _rank(source, _name(pair.left, pair.right)))


def _left(candidates: Iterable[Candidate], done: frozenset[str]) -> Iterator[Candidate]:
    seen = set(done)
    for one in candidates:
        if one.episode_id not in seen:
            seen.add(one.episode_id)
            yield one


def _two_and_two(ranked: Sequence[Candidate]) -> Iterator[tuple[Candidate, Candidate]]:
    yield from zip(ranked[::2], ranked[1::2], strict=False)


def _sides(source: str, two: tuple[Candidate, Candidate]) -> tuple[Candidate, Candidate]:
    first, second = two
    odd = int(_rank(f"{source} left", _name(first, second)), 16) % 2
    return (second, first) if odd else (first, second)


def _name(*pair: Candidate) -> str:
    """Of two episodes, whichever stands left."""
    return " ".join(sorted(one.episode_id for one in pair))


def _rank(source: str, name: str) -> str:
    return hashlib.sha256(f"{source}/{name}".encode()).hexdigest()
