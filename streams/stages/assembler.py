"""The assembler: one partition of `rl.turns.v1` folded into conversations and episodes.

    (nothing) --EpisodeOpened--> open
    (nothing) --EpisodeOpened of a child, its parent is open--> open, in its parent's family
    open --EpisodeSealed, completed, a wanted reward is missing--> sealed
    open --EpisodeSealed otherwise, EpisodeAborted, or Tick past the attempt's deadline--> Episode
    sealed --last wanted Reward, or Tick past the rewards' deadline--> Episode
    (nothing) --Reward--> Reward on rl.revisions.v1, which its readers lay over the closed episode

A child goes the same way, but makes no Episode: its parent's, which waits for it, holds it. Parent
and child are on one partition (see `odradek.schemas.ids.child_message_id`), and the child's opening
comes behind its parent's, so this fold joins nothing that another order could change.

Only EpisodeOpened creates state. Everything else without state is a dead letter, but for a reward,
which may be a closed episode's: there is no memory
of closed episodes, hence no ghost that pins the low-water mark.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

from odradek.infra.bus import Record
from odradek.infra.runtime.telemetry import parent_of
from odradek.schemas.events import (
    EpisodeAborted,
    EpisodeOpened,
    EpisodeSealed,
    Event,
    Reward,
    Tick,
    Turn,
    TurnsEvent,
)
from odradek.schemas.topics import CONVERSATIONS, EPISODES, REVISIONS, TURNS, Topic
from odradek.streams.low_water import LowWater
from odradek.streams.stage import NOTHING, DeadLetter, Emit, Output, Stage, passed_on
from odradek.streams.stages.episode import OpenEpisode
from odradek.streams.stages.tokens import episode_of

HELP: Final = """Run the assembler: rl.turns.v1 becomes rl.conversations.v1 and rl.episodes.v1.

Start as many as you like: they share the partitions. One that dies is taken over after the
session timeout (6 s), and the new owner folds again from the oldest open episode. With an
--instance of its own, it comes back to its partitions at once when it is restarted.

Time reaches it through the log: it appends a Tick where something is overdue. Settings:
ODRADEK_STREAMS_*, Kafka: ODRADEK_KAFKA_*.
"""
"""What `--help` of its verb says."""

CLOSED = (
    DeadLetter("closed_or_unknown", "no EpisodeOpened stands before it, or its episode is closed"),
)
AFTER_END = (DeadLetter("after_end", "the episode had been sealed or aborted"),)
ORPHAN = (DeadLetter("orphan", "the episode that asked for it has ended, or is unknown"),)
SECOND_REWARD = (DeadLetter("late_reward", "an earlier reward of this component counts"),)


class Assembler:
    """The open episodes of one partition."""

    def __init__(self) -> None:
        self.dropped: Counter[str] = Counter()
        self._open: dict[str, OpenEpisode] = {}
        self._low_water = LowWater()
        self._rules: dict[type, Callable[[Record, Any], Sequence[Output]]] = {
            Turn: self._turn,
            EpisodeOpened: self._opened,
            Reward: self._reward,
            EpisodeSealed: self._sealed,
            EpisodeAborted: self._aborted,
        }

    def feed(self, record: Record, event: TurnsEvent) -> Sequence[Output]:
        """See `Fold`."""
        if isinstance(event, Tick):
            return self._tick(record)
        if record.key != event.episode_id:
            return (DeadLetter("wrong_key", "the record's key is not its episode_id"),)
        return self._rules[type(event)](record, event)

    def low_water(self, position: int) -> int:
        """See `Fold`. Episodes stand in the order of their opening, so the first is the oldest."""
        for episode in self._open.values():
            return self._low_water.mark(episode.offset)
        return self._low_water.mark(position)

    def overdue(self, now: float) -> bool:
        """See `Fold`."""
        return any(episode.deadline <= now for episode in self._open.values())

    def open(self) -> int:
        """See `Fold`."""
        return len(self._open)

    def _opened(self, record: Record, opened: EpisodeOpened) -> Sequence[Output]:
        episode = self._open.get(opened.episode_id)
        if episode is None:
            episode = OpenEpisode(
                opened, record.offset, record.timestamp, parent_of(record.headers)
            )
            if opened.parent and not self._adopt(episode, opened):
                return ORPHAN
            self._open[opened.episode_id] = episode
            return NOTHING
        if not episode.opened.parent:
            # A child's raises no ghost: whoever does not know its parent finds an orphan.
            episode.repeat = record.offset
        if episode.opened.unattributed and not opened.unattributed and episode.end is None:
            if opened.parent and not self._adopt(episode, opened):
                return ORPHAN
            episode.opened, episode.at = opened, record.timestamp
        else:
            self.dropped["opened"] += 1
        return NOTHING

    def _adopt(self, child: OpenEpisode, opened: EpisodeOpened) -> bool:
        """Give a child to its parent; False where that waits for no child any more."""
        parent = self._open.get(opened.parent)
        if parent is None or parent.root is child or not parent.takes(opened.message_id):
            return False
        parent.adopt(child, opened.message_id)
        return True

    def _turn(self, _record: Record, turn: Turn) -> Sequence[Output]:
        episode = self._open.get(turn.episode_id)
        if episode is None:
            return CLOSED
        if episode.end is not None:
            return AFTER_END
        refusal = episode.add(turn)
        if refusal == "conflicting_seq":
            return (DeadLetter(refusal, f"{turn.writer} wrote another turn {turn.seq} before"),)
        if refusal:
            self.dropped["turn"] += 1
        return NOTHING

    def _reward(self, record: Record, reward: Reward) -> Sequence[Output]:
        episode = self._open.get(reward.episode_id)
        if episode is None:
            return (self._late(record, reward),)
        refusal = episode.judge(reward)
        if refusal == "late_reward":
            return SECOND_REWARD
        if refusal:
            self.dropped["reward"] += 1
        elif episode.end is not None and episode.rewarded:
            return self._ended(episode, record)
        return NOTHING

    def _late(self, record: Record, reward: Reward) -> Emit:
        """A reward of an episode that is closed, or that nobody opened: only its readers know."""
        return passed_on(REVISIONS, record, reward)

    def _sealed(self, record: Record, sealed: EpisodeSealed) -> Sequence[Output]:
        episode = self._open.get(sealed.episode_id)
        if episode is None or episode.end is not None:
            return CLOSED if episode is None else AFTER_END
        episode.seal(sealed, record.timestamp)
        spoken = self._emit(episode, record, CONVERSATIONS, episode.conversation())
        return (spoken, *self._ended(episode, record))

    def _aborted(self, record: Record, aborted: EpisodeAborted) -> Sequence[Output]:
        episode = self._open.get(aborted.episode_id)
        if episode is None or episode.end is not None:
            return CLOSED if episode is None else AFTER_END
        episode.abort(aborted, record.timestamp)
        return self._ended(episode, record)

    def _tick(self, record: Record) -> Sequence[Output]:
        """Close what is overdue by the Tick's own append time, oldest first."""
        late = [episode for episode in self._open.values() if episode.deadline <= record.timestamp]
        for episode in late:
            episode.expire(record.timestamp)
        roots = dict.fromkeys(episode.root for episode in late)
        return [output for root in roots for output in self._ended(root, record)]

    def _ended(self, episode: OpenEpisode, record: Record) -> Sequence[Output]:
        """Close the sample's episode if nothing is left that it waits for."""
        root = episode.root
        if not root.complete:
            return NOTHING
        for member in (root, *root.family) if root.family else (root,):
            del self._open[member.opened.episode_id]
            self._low_water.closed(member.offset, member.repeat)
        emitted = self._emit(root, record, EPISODES, episode_of(root))
        root.part()
        return (emitted,)

    def _emit(self, episode: OpenEpisode, record: Record, topic: Topic, event: Event) -> Emit:
        opened = episode.opened
        return Emit(
            topic=topic,
            key=opened.task_id if topic is EPISODES else opened.episode_id,
            event=event,
            event_id=f"{opened.episode_id}/{topic.name}",
            trace=episode.trace,
            at=record.timestamp,
        )


ASSEMBLE = Stage(
    name="assemble",
    source=TURNS,
    kind=TurnsEvent,
    sinks=(CONVERSATIONS, EPISODES, REVISIONS),
    fold=Assembler,
)
