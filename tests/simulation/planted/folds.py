"""Faults of the folds: every owner makes the same mistake, so only a second reading finds it."""

from datetime import datetime
from typing import Any

import msgspec

from odradek.schemas.codec import header
from odradek.schemas.events import EpisodeOpened, Outcome
from odradek.streams.stage import DeadLetter
from odradek.streams.stages import tokens
from odradek.streams.stages.assembler import Assembler
from odradek.streams.stages.episode import OpenEpisode
from odradek.streams.stages.grouper import OpenGroup
from tests.simulation.planted.patches import Patches


def dedupe_off() -> Patches:
    """A repeated turn is one more turn."""
    add = OpenEpisode.add

    def careless(self: OpenEpisode, turn: Any) -> str:
        told = add(self, turn)
        if told == "duplicate":
            self.turns[f"{turn.turn_id}+{len(self.turns)}"] = turn
            return ""
        return told

    return [(OpenEpisode, "add", careless)]


def state_without_opened() -> Patches:
    """Whatever comes first opens an episode."""
    turn = Assembler._turn

    def welcoming(self: Assembler, record: Any, event: Any) -> Any:
        if event.episode_id not in self._open:
            opened = EpisodeOpened(
                episode_id=event.episode_id,
                task_id="unknown",
                agent="hilo",
                sample=0,
                group_size=1,
            )
            self._open[event.episode_id] = OpenEpisode(
                opened, record.offset, record.timestamp, None
            )
        return turn(self, record, event)

    return [(Assembler, "_turn", welcoming)]


def late_rewards_dropped() -> Patches:
    """A reward for a closed episode is nobody's."""
    return [(Assembler, "_late", lambda *_: DeadLetter("late_reward"))]


def last_reward_counts() -> Patches:
    """A judge that changes its mind is believed."""

    def judge(self: OpenEpisode, reward: Any) -> str:
        self.rewards[reward.component] = reward
        return ""

    return [(OpenEpisode, "judge", judge)]


def gaps_ignored() -> Patches:
    """An episode is complete, whatever turns are missing."""
    return [(OpenEpisode, "_gap", lambda *_: "")]


def turns_after_the_end() -> Patches:
    """What comes after EpisodeSealed is taken as long as the episode waits for its reward."""
    turn = Assembler._turn

    def patient(self: Assembler, record: Any, event: Any) -> Any:
        story = self._open.get(event.episode_id)
        if story is not None and story.end is not None:
            story.add(event)
            return ()
        return turn(self, record, event)

    return [(Assembler, "_turn", patient)]


def clocks_believed() -> Patches:
    """A Tick is judged by its writer's clock, not by when the broker appended it."""
    tick = Assembler._tick

    def told(self: Assembler, record: Any) -> Any:
        said = header(record.headers, "ce_time") or ""
        at = datetime.fromisoformat(said).timestamp()
        return tick(self, msgspec.structs.replace(record, timestamp=at))

    return [(Assembler, "_tick", told)]


def children_not_waited_for() -> Patches:
    """A parent closes at its own end, whatever its children do."""
    return [(OpenEpisode, "complete", property(lambda self: self.settled))]


def lost_children_forgiven() -> Patches:
    """A parent counts although a child of it was lost."""
    return [(tokens, "_loss", lambda _child: None)]


def orphans_adopted() -> Patches:
    """A child that begins behind its parent's end is taken for one of its own."""
    return [(OpenEpisode, "takes", lambda self, _message_id: bool(self.opened))]


def retried_children_trained() -> Patches:
    """An attempt that another one follows counts like the one that follows."""
    abort = OpenEpisode.abort

    def forgetful(self: OpenEpisode, event: Any, at: float) -> Any:
        if self.opened.parent and event.retry:
            event = msgspec.structs.replace(event, reason=Outcome.FAILED, retry=False)
        return abort(self, event, at)

    return [(OpenEpisode, "abort", forgetful)]


def worth_of_parents_alone() -> Patches:
    """A child's own reward is waited for, and then counts for nothing."""
    worth = tokens._worth

    def plain(episode: OpenEpisode, parent: Any = None) -> Any:
        found = worth(episode, parent)
        return parent if found is not None and parent is not None else found

    return [(tokens, "_worth", plain)]


def retries_end_samples() -> Patches:
    """An attempt that another one follows ends its sample."""
    take = OpenGroup.take

    def hasty(self: OpenGroup, record: Any, head: Any) -> str:
        return take(self, record, msgspec.structs.replace(head, retry=False))

    return [(OpenGroup, "take", hasty)]


def first_sample_wins_late() -> Patches:
    """The last episode of a sample counts, not the first."""
    take = OpenGroup.take

    def fickle(self: OpenGroup, record: Any, head: Any) -> str:
        self._counting.pop(head.sample, None)
        return take(self, record, head)

    return [(OpenGroup, "take", fickle)]
