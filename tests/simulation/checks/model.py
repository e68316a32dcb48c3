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
LATE = "late"


class ChildEnding(NamedTuple):
    """What a child comes to, as a part of its parent's ending."""

    episode: str
    outcome: Outcome
    turns: int
    reward: float | None
    retry: bool


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
    children: tuple[ChildEnding, ...] = ()


class Closed(NamedTuple):
    """What a group comes to."""

    task: str
    counted: tuple[tuple[int, str, int, int], ...]
    """(sample, episode, partition, offset)"""
    excluded: tuple[tuple[int, str], ...]
    """(sample, reason)"""
    retries: int
    equal: bool
    differ: bool
    """Whether children that are worth something of their own are worth different rewards."""
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
    root: "Life | None" = None
    """Of a child: its parent; children of these worlds have none themselves."""
    children: "list[Life]" = field(default_factory=list)
    outcome: Outcome | None = None
    ended_at: float = 0.0
    retry: bool = False
    followed: bool = False
    """Whether the attempt that its end promised has begun."""

    @property
    def awaited(self) -> bool:
        """Of a child: whether its parent has to wait for it, or for its next attempt."""
        return self.outcome is None or (self.retry and not self.followed)

    @property
    def unrewarded(self) -> bool:
        return self.reward is None and (self.root is None or self.opened.own_weight > 0)

    @property
    def due(self) -> float:
        times = self.opened.timeouts
        if self.outcome is not None:
            waits = self.root is not None and self.awaited
            return self.ended_at + (times.attempt_s + times.seal_s) if waits else float("inf")
        if self.sealed_at is not None:
            return self.sealed_at + times.reward_s
        return self.at + (times.attempt_s + times.seal_s)

    def complete(self, sealed: events.EpisodeSealed) -> bool:
        """Whether each writer's turns are there from the first to the last, and as many as sealed."""
        seqs: dict[str, set[int]] = {}
        for turn in self.turns.values():
            seqs.setdefault(turn.writer, set()).add(turn.seq)
        if {*sealed.children} - {child.opened.episode_id for child in self.children}:
            return False
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
        self.late: list[tuple[bytes | None, bytes | None]] = []
        """Key and value of each reward that came when its episode was closed."""
        self._open: dict[str, Life] = {}
        for message in world.cluster.partition(where).read(0, committed=True, most=1 << 60)[0]:
            try:
                self._offset = message.offset
                event = codec.decode(message.value, events.TurnsEvent)
            except InvalidRecord:
                reason = JUNK
            else:
                reason = self._take(event, at_s(message))
            if reason == LATE:
                self.late.append((message.key, message.value))
            elif reason:
                self.letters[message[:3]] = reason

    def _take(self, event: Any, at: float) -> str:
        if isinstance(event, events.Tick):
            late = [one for one in self._open.values() if one.due <= at]
            for life in late:
                self._expire(life, at)
            for root in {id(one.root or one): one.root or one for one in late}.values():
                self._close(root, at)
            return ""
        life = self._open.get(event.episode_id)
        if isinstance(event, events.EpisodeOpened):
            return self._opened(life, event, at)
        if isinstance(event, events.Reward):
            return self._reward(life, event, at)
        if life is None or life.sealed_at is not None or life.outcome is not None:
            return "closed_or_unknown" if life is None else "after_end"
        if isinstance(event, events.Turn):
            life.turns.setdefault(event.turn_id, event)
        elif isinstance(event, events.EpisodeAborted):
            self._end(life, event.reason, at, at, retry=event.retry)
        else:
            self._seal(life, event, at)
        return ""

    def _opened(self, life: Life | None, opened: events.EpisodeOpened, at: float) -> str:
        if life is not None:
            if life.root is None:  # without its parent, a child's is an orphan's
                life.repeat = self._offset
            return ""
        life = Life(opened, at, self._offset)
        if opened.parent:
            parent = self._open.get(opened.parent)
            earlier = [
                child
                for child in (parent.children if parent else ())
                if child.opened.message_id == opened.message_id
            ]
            begun = parent is not None and parent.outcome is None and parent.sealed_at is None
            if parent is None or not (begun or any(child.retry for child in earlier)):
                return "orphan"
            for child in earlier:
                child.followed = True
            life.root = parent
            parent.children.append(life)
        self._open[opened.episode_id] = life
        return ""

    def _expire(self, life: Life, at: float) -> None:
        self.waited.append((life.opened.episode_id, life.due, at))
        lost = life.sealed_at is None
        if life.outcome is not None:
            life.retry = False  # of the attempt that it had promised
        else:
            life.outcome = Outcome.HOST_LOST if lost else Outcome.UNREWARDED
            life.retry = lost and not life.opened.last_attempt
        life.ended_at = at

    def _reward(self, life: Life | None, reward: events.Reward, at: float) -> str:
        if life is None:
            return LATE
        if life.reward is not None:
            return "" if life.reward == reward else "late_reward"
        life.reward = reward
        if life.sealed_at is not None and life.outcome is None:
            self._end(life, Outcome.COMPLETED, life.sealed_at, at)
        return ""

    def _seal(self, life: Life, sealed: events.EpisodeSealed, at: float) -> None:
        self.spoken.append((sealed.episode_id, at))
        outcome = sealed.outcome
        if outcome in BY_AGENT and not life.complete(sealed):
            outcome = Outcome.INCOMPLETE
        if outcome is Outcome.COMPLETED and life.unrewarded:
            life.sealed_at = at
        else:
            self._end(life, outcome, at, at)

    def _end(
        self, life: Life, outcome: Outcome, ended: float, told: float, *, retry: bool = False
    ) -> None:
        life.outcome, life.ended_at, life.retry = outcome, ended, retry
        self._close(life.root or life, told)

    def _close(self, life: Life, told: float) -> None:
        """Close the episode of a sample, with its children, if it waits for nothing."""
        outcome, opened = life.outcome, life.opened
        if outcome is None:
            return
        if outcome in BY_AGENT and any(child.awaited for child in life.children):
            return
        for one in (life, *life.children):
            del self._open[one.opened.episode_id]
            self.spans.append((one.offset, one.repeat, self._offset))
        reward = _own(life) if outcome in BY_AGENT else None
        children = tuple(_child(child, reward) for child in life.children)
        ended, retry = life.ended_at, life.retry
        for child in life.children if outcome in BY_AGENT else ():
            if child.outcome in BY_AGENT or child.retry or child.outcome is Outcome.CANCELLED:
                continue
            lost = child.outcome is not Outcome.UNREWARDED
            outcome = Outcome.INCOMPLETE if lost else Outcome.UNREWARDED
            reward, ended, retry = None, child.ended_at, False
            break
        self.endings.append(
            Ending(
                *(opened.episode_id, opened.task_id, opened.sample, outcome, len(life.turns)),
                *(reward, retry, ended, told, children),
            )
        )


def _own(life: Life) -> float:
    """What an episode that counts is worth by its own rewards."""
    if life.outcome is not Outcome.COMPLETED:
        return life.opened.failure_reward
    return life.reward.value if life.reward is not None else 0.0


def _child(life: Life, parent: float | None) -> ChildEnding:
    worth = None
    if parent is not None and life.outcome in BY_AGENT:
        worth = life.opened.own_weight * _own(life) + life.opened.parent_weight * parent
    unended = Outcome.INCOMPLETE if life.sealed_at is None else Outcome.COMPLETED
    outcome = life.outcome or unended
    return ChildEnding(life.opened.episode_id, outcome, len(life.turns), worth, life.retry)


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
        own = {
            child.reward
            for event, _ in counted.values()
            for child in event.children
            if child.reward is not None and (child.own, child.share) != (0.0, 1.0)
        }
        differ = len(own) > 1
        self.closed.append(
            Closed(
                party.expected.task_id,
                tuple(
                    (sample, event.episode_id, message.partition, message.offset)
                    for sample, (event, message) in sorted(counted.items())
                ),
                tuple(sorted(excluded.items())),
                party.retries,
                len(counted) > 1 and len(rewards) == 1 and not differ,
                differ,
                at,
            )
        )
