"""Revisions: rewards for episodes that were closed already, and what they make of a batch. Pure.

A late reward overwrites nothing. It is a record of its own on `rl.revisions.v1`, which has one
partition. So an offset there names a state of all rewards, and whoever reads up to the same offset
comes to the same numbers. A revised batch is the batch of the grouper with the rewards of that
state: it is computed where it is needed, and stored nowhere.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import msgspec
from msgspec import Struct

from odradek.schemas import codec
from odradek.schemas.codec import Headers
from odradek.schemas.errors import NotRevisable
from odradek.schemas.events import Batch, Outcome, Reward
from odradek.schemas.worth import DEFAULT_COMPONENT

FIRST: Final = "first"
"""Names the rewards that the batches have."""
LATEST: Final = "latest"
"""Names the newest state of all rewards."""
ALONE: Final = {DEFAULT_COMPONENT: 1.0}


class RewardedEpisode(Protocol):
    """The part of an episode that says how its reward was made."""

    @property
    def episode_id(self) -> str:
        """Which episode."""
        ...

    @property
    def outcome(self) -> Outcome:
        """How it ended."""
        ...

    @property
    def reward(self) -> float | None:
        """What it is worth."""
        ...

    @property
    def components(self) -> dict[str, float]:
        """Values by component."""
        ...

    @property
    def weights(self) -> dict[str, float]:
        """Weights by component; empty for "reward" alone."""
        ...


class LateReward(Struct, frozen=True):
    """One component's verdict on an episode that was closed."""

    offset: int
    """Of its record on `rl.revisions.v1`."""
    component: str
    value: float
    source: str


class RevisedReward(Struct, frozen=True):
    """What an episode is worth after late rewards."""

    reward: float | None
    components: dict[str, float]
    revision: int
    """How many late rewards changed a component; 0: none."""


class RevisionBook:
    """Late rewards by episode, in the order of the log.

    Attributes:
        end: The first offset of `rl.revisions.v1` that was not read.
    """

    def __init__(self) -> None:
        self.end = 0
        self._late: dict[str, list[LateReward]] = {}
        self._ids: set[str] = set()

    def __len__(self) -> int:
        return sum(map(len, self._late.values()))

    def add(self, offset: int, reward: Reward, event_id: str = "") -> None:
        """Take the next record of the topic, and the id of its event.

        An event that came already changes nothing: judges write at least once.
        """
        if offset < self.end:
            return
        self.end = offset + 1
        if event_id in self._ids:
            return
        if event_id:
            self._ids.add(event_id)
        late = LateReward(offset, reward.component, reward.value, reward.source)
        self._late.setdefault(reward.episode_id, []).append(late)

    def read(self, offset: int, value: bytes | None, headers: Headers) -> Reward:
        """Take the next record as it stands on the topic; return its reward.

        Raises InvalidRecord, and then takes nothing.
        """
        reward: Reward = codec.decode(value, Reward)
        self.add(offset, reward, codec.header(headers, "ce_id") or "")
        return reward

    def of(self, episode_id: str, until: int | None = None) -> tuple[LateReward, ...]:
        """Late rewards of an episode, up to an offset (left out) or to the newest."""
        late = self._late.get(episode_id, ())
        return tuple(each for each in late if until is None or each.offset < until)

    def concerns(self, batch: Batch, until: int | None = None) -> tuple[str, ...]:
        """Episodes of a batch that have late rewards."""
        return tuple(p.episode_id for p in batch.episodes if self.of(p.episode_id, until))


def revised_reward(episode: RewardedEpisode, late: Sequence[LateReward]) -> RevisedReward:
    """What an episode is worth after late rewards, in their order: the last of a component counts.

    A failed or timed-out run keeps its failure reward, and one that counts for nothing stays so.
    A component that its task does not name is kept, and changes nothing.

    Raises:
        NotRevisable: The record does not say how its reward was made of its components.
    """
    components, revision = dict(episode.components), 0
    for each in late:
        if components.get(each.component) != each.value:
            components[each.component] = each.value
            revision += 1
    weights = episode.weights or ALONE
    if not revision or episode.outcome is not Outcome.COMPLETED or episode.reward is None:
        return RevisedReward(episode.reward, components, revision)
    before = _weighted(weights, episode.components)
    if before is None or not math.isclose(before, episode.reward, rel_tol=1e-9, abs_tol=1e-12):
        raise NotRevisable(
            f"episode {episode.episode_id} has the reward {episode.reward:g}, and its record does "
            "not say how that was made of its components, as those of earlier releases do not: "
            "choose batches without it, or the revision `first`"
        )
    after = _weighted(weights, components)
    if after is None:
        raise NotRevisable(
            f"episode {episode.episode_id}: the weighted sum of its rewards is infinite"
        )
    return RevisedReward(after, components, revision)


def _weighted(weights: Mapping[str, float], components: Mapping[str, float]) -> float | None:
    if not components.keys() >= weights.keys():
        return None
    total = sum(weight * components[name] for name, weight in weights.items())
    return total if math.isfinite(total) else None


def revised_batch(
    batch: Batch,
    episodes: Mapping[str, RewardedEpisode],
    book: RevisionBook,
    until: int | None = None,
) -> Batch:
    """A batch with the rewards of a state of the revisions; itself where they change none of them.

    An excluded sample stays excluded: a reward that came too late for its group brings no sample
    back.

    Args:
        batch: As the grouper wrote it.
        episodes: By episode id; one that is missing keeps the reward that the batch states.
        book: Late rewards.
        until: Offset on `rl.revisions.v1`, the first that is left out; None: all that was read.

    Raises:
        NotRevisable: See `revised_reward`.
    """
    pointers = []
    for pointer in batch.episodes:
        late = book.of(pointer.episode_id, until)
        episode = episodes.get(pointer.episode_id) if late else None
        now = None if episode is None else revised_reward(episode, late)
        if now is not None and now.reward is not None and now.reward != pointer.reward:
            pointer = msgspec.structs.replace(  # noqa: PLW2901 - the same sample, worth anew
                pointer, reward=now.reward, revision=now.revision
            )
        pointers.append(pointer)
    if tuple(pointers) == batch.episodes:
        return batch
    rewards = {pointer.reward for pointer in pointers}
    return msgspec.structs.replace(
        batch,
        episodes=tuple(pointers),
        zero_variance=len(pointers) > 1 and len(rewards) == 1 and not batch.children_differ,
        revision=book.end if until is None else until,
    )
