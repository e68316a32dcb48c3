"""The Episode event that an ended episode makes: its tokens and its reward.

The sequences of its children are further sequences of the same record, so they are in the same
sample of the same group, and nothing that counts samples has to know of them. What a child is worth
is the task's rule: `own_weight` times its own reward plus `parent_weight` times what its parent is
worth.
"""

import math

import msgspec
from msgspec import Struct

from odradek.schemas.events import Break, ChildEpisode, Episode, Outcome, Sequence, Turn, Usage
from odradek.schemas.topics import EPISODES
from odradek.streams.stages.episode import EpisodeEnd, OpenEpisode


class _Worth(Struct, frozen=True):
    """What sequences are worth, and how much of it is the sample's reward."""

    reward: float
    share: float = 1.0


class _Parts:
    """What an episode and its children put into the record."""

    def __init__(self, root: OpenEpisode) -> None:
        continuity = root.continuity()
        self.sequences: list[Sequence] = list(continuity.sequences())
        self.breaks: list[Break] = list(continuity.breaks)
        self.untrained_turns = continuity.untrained_turns
        self.children: list[ChildEpisode] = []
        self.lost: EpisodeEnd | None = None
        """How the sample ends because of a child, if it does."""
        self._worths = {root.opened.episode_id: _worth(root)}

    def add(self, child: OpenEpisode) -> None:
        """Take a child; children are added in the order of their opening, so parents come first."""
        opened, end = child.opened, child.ended
        parent = self._worths[opened.parent]
        worth = None if parent is None else _worth(child, parent)
        self._worths[opened.episode_id] = worth
        continuity = child.continuity("" if worth is not None else _why_not(end))
        self.sequences += (
            msgspec.structs.replace(sequence, child=opened.episode_id)
            for sequence in continuity.sequences()
        )
        self.breaks += continuity.breaks
        self.untrained_turns |= continuity.untrained_turns
        if self.lost is None and parent is not None and worth is None:
            self.lost = _loss(child)
        self.children.append(
            ChildEpisode(
                episode_id=opened.episode_id,
                parent=opened.parent,
                agent=opened.agent,
                attempt=opened.attempt,
                retry=end.retry,
                outcome=end.outcome,
                error=end.error,
                reward=None if worth is None else worth.reward,
                own=opened.own_weight,
                share=1.0 if worth is None else worth.share,
                components=_components(child),
                n_turns=len(child.turns),
                opened_at=child.at,
                closed_at=end.at,
            )
        )


def _worth(episode: OpenEpisode, parent: _Worth | None = None) -> _Worth | None:
    """What an episode's sequences are worth; None where they are not trained on."""
    opened, end = episode.opened, episode.ended
    own = None if end.retry else episode.reward(end.outcome)
    if own is None or parent is None:
        return None if own is None else _Worth(own)
    reward = opened.own_weight * own + opened.parent_weight * parent.reward
    return _Worth(reward, opened.parent_weight * parent.share) if math.isfinite(reward) else None


def _loss(child: OpenEpisode) -> EpisodeEnd | None:
    """How a sample ends because a child of it has no worth; None where that changes nothing.

    A child that its parent called off is left out, as is an attempt that another one followed.
    Whatever else came to no reward would leave a hole in what the sample was.
    """
    opened, end = child.opened, child.ended
    if end.retry or end.outcome is Outcome.CANCELLED:
        return None
    why = end.error or "what it is worth is not finite"
    outcome = Outcome.INCOMPLETE
    if end.outcome in {Outcome.UNREWARDED, Outcome.COMPLETED}:
        outcome = Outcome.UNREWARDED
    text = f"its child {opened.episode_id} ({opened.agent}) is {end.outcome}: {why}"
    return EpisodeEnd(outcome, end.at, text[:2000])


def _why_not(end: EpisodeEnd) -> str:
    """Why a child's turns are not trained on."""
    if end.retry:
        return "retried"
    return "parent_excluded" if end.outcome.counts else f"child_{end.outcome}"


def _components(episode: OpenEpisode) -> dict[str, float]:
    return {name: episode.rewards[name].value for name in sorted(episode.rewards)}


def episode_of(root: OpenEpisode) -> Episode:
    """The tokens and the reward of an ended episode, and of its children as they are."""
    opened, end = root.opened, root.ended
    parts = _Parts(root)
    for child in root.family:
        parts.add(child)
    reward = root.reward(end.outcome)
    if end.outcome.counts and reward is not None and parts.lost is not None:
        end, reward = parts.lost, None
    turns = root.ordered()
    if root.family:
        turns = [turn for member in (root, *root.family) for turn in member.ordered()]
    size = sum([len(run.ids) + len(run.logprobs) for run in parts.sequences]) * 4 // 3
    if size + 256 * len(turns) + 1024 * len(root.family) + 4096 > EPISODES.max_bytes:
        end = EpisodeEnd(Outcome.INCOMPLETE, end.at, f"{size} bytes of tokens: too_large")
        reward, parts.sequences = None, []
        parts.untrained_turns.update(dict.fromkeys((turn.turn_id for turn in turns), "too_large"))
    if end.outcome is Outcome.COMPLETED and reward is None:
        end = EpisodeEnd(Outcome.UNREWARDED, end.at, "the weighted sum of rewards is not finite")
    return Episode(
        episode_id=opened.episode_id,
        task_id=opened.task_id,
        agent=opened.agent,
        sample=opened.sample,
        group_size=opened.group_size,
        attempt=opened.attempt,
        retry=end.retry,
        purpose=opened.purpose,
        item=opened.item,
        outcome=end.outcome,
        error=end.error,
        reward=reward,
        components=_components(root),
        weights=opened.rewards,
        sequences=tuple(parts.sequences),
        breaks=tuple(parts.breaks),
        n_turns=len(root.turns),
        untrained_turns=parts.untrained_turns,
        usage=_usage(turns),
        opened_at=root.at,
        closed_at=end.at,
        unattributed=opened.unattributed,
        children=tuple(parts.children),
    )


def _usage(turns: list[Turn]) -> Usage:
    prompt = completion = cached = 0
    for turn in turns:
        prompt += turn.usage.prompt_tokens
        completion += turn.usage.completion_tokens
        cached += turn.usage.cached_tokens
    return Usage(prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached)
