"""A second reading of the rules: what should come of a log, in the fewest lines.

It shares no code with the stages, so a mistake in their folds shows as a difference. It knows only
what the simulated hosts do: one component, no unattributed calls, no retries of calls.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aiokafka import TopicPartition

from odradek.schemas import codec, events
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import Outcome
from tests.simulation.checks.logs import at_s
from tests.simulation.cluster import Message
from tests.simulation.world import World

BY_AGENT = frozenset({Outcome.COMPLETED, Outcome.FAILED, Outcome.TIMED_OUT})
JUNK = "junk"


class Ending(NamedTuple):
    """What an episode comes to."""

    episode: str
    task: str
    sample: int
    outcome: Outcome
    turns: int
    reward: float | None
    retry: bool
    ended_at: float
    """Append time of what ended it."""
    told_at: float
    """Append time of what closed it: that, or its reward."""


class Closed(NamedTuple):
    """What a group comes to."""

    task: str
    counted: tuple[tuple[int, str, int, int], ...]
    """(sample, episode, partition, offset)"""
    excluded: tuple[tuple[int, str], ...]
    """(sample, reason)"""
    retries: int
    equal: bool
    told_at: float


@dataclass
class Life:
    """An open episode."""

    opened: events.EpisodeOpened
    at: float
    offset: int
    repeat: int = -1
    """Offset of the last repeat of EpisodeOpened."""
    turns: dict[str, events.Turn] = field(default_factory=dict)
    reward: events.Reward | None = None
    sealed_at: float | None = None

    @property
    def due(self) -> float:
        times = self.opened.timeouts
        if self.sealed_at is not None:
            return self.sealed_at + times.reward_s
        return self.at + (times.attempt_s + times.seal_s)

    def complete(self, sealed: events.EpisodeSealed) -> bool:
        """Whether each writer's turns are there from the first to the last, and as many as sealed."""
        seqs: dict[str, set[int]] = {}
        for turn in self.turns.values():
            seqs.setdefault(turn.writer, set()).add(turn.seq)
        counted = sealed.writer or sealed.n_turns
        if counted and len(seqs.setdefault(sealed.writer, set())) != sealed.n_turns:
            return False
        return all(run == set(range(len(run))) for run in seqs.values())


class Turns:
    """What a partition of `rl.turns` comes to."""

    def __init__(self, world: World, where: TopicPartition) -> None:
        self.endings: list[Ending] = []
        self.spoken: list[tuple[str, float]] = []
        self.waited: list[tuple[str, float, float]] = []
        """(episode, when it was due, when a Tick closed it)"""
        self.spans: list[tuple[int, int, int]] = []
        """Offsets of what opened an episode, of its last repeat or -1, of what closed it."""
        self._offset = 0
        self.letters: dict[tuple[str, int, int], str] = {}
        self._open: dict[str, Life] = {}
        for message in world.cluster.partition(where).read(0, committed=True, most=1 << 60)[0]:
            try:
                self._offset = message.offset
                event = codec.decode(message.value, events.TurnsEvent)
            except InvalidRecord:
                reason = JUNK
            else:
                reason = self._take(event, at_s(message))
            if reason:
                self.letters[message[:3]] = reason

    def _take(self, event: Any, at: float) -> str:
        if isinstance(event, events.Tick):
            for life in [one for one in self._open.values() if one.due <= at]:
                self.waited.append((life.opened.episode_id, life.due, at))
                lost = life.sealed_at is None
                outcome = Outcome.HOST_LOST if lost else Outcome.UNREWARDED
                self._end(life, outcome, at, at, retry=lost and not life.opened.last_attempt)
            return ""
        life = self._open.get(event.episode_id)
        if isinstance(event, events.EpisodeOpened):
            if life is not None:
                life.repeat = self._offset
            else:
                self._open[event.episode_id] = Life(event, at, self._offset)
            return ""
        if isinstance(event, events.Reward):
            return self._reward(life, event, at)
        if life is None or life.sealed_at is not None:
            return "closed_or_unknown" if life is None else "after_end"
        if isinstance(event, events.Turn):
            life.turns.setdefault(event.turn_id, event)
        elif isinstance(event, events.EpisodeAborted):
            self._end(life, event.reason, at, at, retry=event.retry)
        else:
            self._seal(life, event, at)
        return ""

    def _reward(self, life: Life | None, reward: events.Reward, at: float) -> str:
        if life is None:
            return "late_reward"
        if life.reward is not None:
            return "" if life.reward == reward else "late_reward"
        life.reward = reward
        if life.sealed_at is not None:
            self._end(life, Outcome.COMPLETED, life.sealed_at, at)
        return ""

    def _seal(self, life: Life, sealed: events.EpisodeSealed, at: float) -> None:
        self.spoken.append((sealed.episode_id, at))
        outcome = sealed.outcome
        if outcome in BY_AGENT and not life.complete(sealed):
            outcome = Outcome.INCOMPLETE
        if outcome is Outcome.COMPLETED and life.reward is None:
            life.sealed_at = at
        else:
            self._end(life, outcome, at, at)

    def _end(
        self, life: Life, outcome: Outcome, ended: float, told: float, *, retry: bool = False
    ) -> None:
        opened = life.opened
        del self._open[opened.episode_id]
        self.spans.append((life.offset, life.repeat, self._offset))
        reward = opened.failure_reward if outcome in BY_AGENT else None
        if outcome is Outcome.COMPLETED:
            assert life.reward is not None
            reward = life.reward.value
        self.endings.append(
            Ending(
                *(opened.episode_id, opened.task_id, opened.sample, outcome, len(life.turns)),
                *(reward, retry, ended, told),
            )
        )


@dataclass
class Party:
    """An open group."""

    expected: events.GroupOpened
    at: float
    offset: int
    counted: dict[int, tuple[events.Episode, Message]] = field(default_factory=dict)
    excluded: dict[int, str] = field(default_factory=dict)
    retries: int = 0


class Tasks:
    """What a partition of `rl.episodes` comes to."""

    def __init__(self, world: World, where: TopicPartition) -> None:
        self.closed: list[Closed] = []
        self.waited: list[tuple[str, float, float]] = []
        """(task, when it was due, when a Tick closed it)"""
        self.spans: list[tuple[int, int, int]] = []
        """As of `Turns`; no GroupOpened is repeated."""
        self._offset = 0
        self.letters: dict[tuple[str, int, int], str] = {}
        self._open: dict[str, Party] = {}
        for message in world.cluster.partition(where).read(0, committed=True, most=1 << 60)[0]:
            event = codec.decode(message.value, events.EpisodesEvent)
            if reason := self._take(message, event):
                self.letters[message[:3]] = reason

    def _take(self, message: Message, event: Any) -> str:
        at, self._offset = at_s(message), message.offset
        if isinstance(event, events.Tick):
            due = [one for one in self._open.values() if one.at + one.expected.group_s <= at]
            for party in due:
                waits = party.at + party.expected.group_s
                self.waited.append((party.expected.task_id, waits, at))
                self._close(party, at)
            return ""
        party = self._open.get(event.task_id)
        if isinstance(event, events.GroupOpened):
            self._open.setdefault(event.task_id, Party(event, at, self._offset))
            return "duplicate_task" if party else ""
        if party is None:
            return "late_sample"
        counts = event.outcome in BY_AGENT
        done = event.sample in party.counted
        if done or (event.sample in party.excluded and not counts and not event.retry):
            return "late_sample"
        if event.retry:
            party.retries += 1
        elif counts:
            party.excluded.pop(event.sample, None)
            party.counted[event.sample] = event, message
        else:
            party.excluded[event.sample] = event.outcome.value
        if len(party.counted) + len(party.excluded) == party.expected.group_size:
            self._close(party, at)
        return ""

    def _close(self, party: Party, at: float) -> None:
        del self._open[party.expected.task_id]
        self.spans.append((party.offset, -1, self._offset))
        size, counted, excluded = party.expected.group_size, party.counted, party.excluded
        for sample in set(range(size)) - counted.keys() - excluded.keys():
            excluded[sample] = "missing"
        if len(counted) < min(2, size):
            excluded |= dict.fromkeys(counted, "too_few")
            counted = {}
        rewards = Counter(event.reward for event, _ in counted.values())
        self.closed.append(
            Closed(
                party.expected.task_id,
                tuple(
                    (sample, event.episode_id, message.partition, message.offset)
                    for sample, (event, message) in sorted(counted.items())
                ),
                tuple(sorted(excluded.items())),
                party.retries,
                len(counted) > 1 and len(rewards) == 1,
                at,
            )
        )
