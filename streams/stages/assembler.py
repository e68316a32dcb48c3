"""The assembler: one partition of `rl.turns.v1` folded into conversations and episodes.

    (nothing) --Opened--> open --Sealed--> sealed --last wanted reward, or Tick--> Episode
                            |                 `---- failed, timed out, incomplete --> Episode
                            |---Aborted--> Episode
                            `---Tick past the run's deadline--> Episode

Only EpisodeOpened creates state. Everything else without state is a dead letter: there is no memory
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
    Outcome,
    Reward,
    Tick,
    Turn,
    TurnsEvent,
)
from odradek.schemas.topics import CONVERSATIONS, EPISODES, TURNS, Topic
from odradek.streams.low_water import LowWater
from odradek.streams.stage import NOTHING, DeadLetter, Emit, Output, Stage
from odradek.streams.stages.episode import OpenEpisode

HELP: Final = """Run the assembler: rl.turns.v1 becomes rl.conversations.v1 and rl.episodes.v1.

Start as many as you like: they share the partitions. One that dies is taken over after the
session timeout (6 s), and the new owner folds again from the oldest open episode. With an
--instance of its own, it comes back to its partitions at once when it is restarted.

Time reaches it through the log: it appends a Tick where something is overdue. Settings:
ODRADEK_STREAMS_*, Kafka: ODRADEK_KAFKA_*.
"""
"""What `--help` of its verb says."""

CLOSED = (DeadLetter("closed_or_unknown", "no Opened stands before it, or its episode is closed"),)
AFTER_END = (DeadLetter("after_end", "the episode had been sealed or aborted"),)
LATE_REWARD = (DeadLetter("late_reward", "the episode is closed or unknown"),)
SECOND_REWARD = (DeadLetter("late_reward", "an earlier reward of this component counts"),)


class Assembler:
    """The open episodes of one partition."""

    def __init__(self) -> None:
        self.dropped: Counter[str] = Counter()
        self._open: dict[str, OpenEpisode] = {}
        self._marks = LowWater()
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
        for story in self._open.values():
            return self._marks.mark(story.offset)
        return self._marks.mark(position)

    def overdue(self, now: float) -> bool:
        """See `Fold`."""
        return any(story.deadline <= now for story in self._open.values())

    def open(self) -> int:
        """See `Fold`."""
        return len(self._open)

    def _opened(self, record: Record, opened: EpisodeOpened) -> Sequence[Output]:
        story = self._open.get(opened.episode_id)
        if story is None:
            self._open[opened.episode_id] = OpenEpisode(
                opened, record.offset, record.timestamp, parent_of(record.headers)
            )
            return NOTHING
        story.repeat = record.offset
        if story.opened.unattributed and not opened.unattributed and story.end is None:
            story.opened, story.at = opened, record.timestamp
        else:
            self.dropped["opened"] += 1
        return NOTHING

    def _turn(self, _record: Record, turn: Turn) -> Sequence[Output]:
        story = self._open.get(turn.episode_id)
        if story is None:
            return CLOSED
        if story.end is not None:
            return AFTER_END
        told = story.add(turn)
        if told == "conflicting_seq":
            return (DeadLetter(told, f"{turn.writer} wrote another turn {turn.seq} before"),)
        if told:
            self.dropped["turn"] += 1
        return NOTHING

    def _reward(self, record: Record, reward: Reward) -> Sequence[Output]:
        story = self._open.get(reward.episode_id)
        if story is None:
            return LATE_REWARD
        told = story.judge(reward)
        if told == "late_reward":
            return SECOND_REWARD
        if told:
            self.dropped["reward"] += 1
        elif story.end is not None and story.rewarded:
            return (self._close(story, record),)
        return NOTHING

    def _sealed(self, record: Record, sealed: EpisodeSealed) -> Sequence[Output]:
        story = self._open.get(sealed.episode_id)
        if story is None or story.end is not None:
            return CLOSED if story is None else AFTER_END
        end = story.seal(sealed, record.timestamp)
        spoken = self._emit(story, record, CONVERSATIONS, story.conversation())
        if end.outcome is Outcome.COMPLETED and not story.rewarded:
            return (spoken,)
        return (spoken, self._close(story, record))

    def _aborted(self, record: Record, aborted: EpisodeAborted) -> Sequence[Output]:
        story = self._open.get(aborted.episode_id)
        if story is None or story.end is not None:
            return CLOSED if story is None else AFTER_END
        story.abort(aborted, record.timestamp)
        return (self._close(story, record),)

    def _tick(self, record: Record) -> Sequence[Output]:
        """Close what is overdue by the Tick's own append time, oldest first."""
        late = [story for story in self._open.values() if story.deadline <= record.timestamp]
        for story in late:
            story.expire(record.timestamp)
        return [self._close(story, record) for story in late]

    def _close(self, story: OpenEpisode, record: Record) -> Emit:
        del self._open[story.opened.episode_id]
        self._marks.closed(story.offset, story.repeat)
        return self._emit(story, record, EPISODES, story.episode())

    def _emit(self, story: OpenEpisode, record: Record, topic: Topic, event: Event) -> Emit:
        opened = story.opened
        return Emit(
            topic=topic,
            key=opened.task_id if topic is EPISODES else opened.episode_id,
            event=event,
            event_id=f"{opened.episode_id}/{topic.name}",
            trace=story.trace,
            at=record.timestamp,
        )


ASSEMBLE = Stage(
    name="assemble",
    source=TURNS,
    kind=TurnsEvent,
    sinks=(CONVERSATIONS, EPISODES),
    fold=Assembler,
)
