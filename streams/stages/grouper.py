"""The grouper: one partition of `rl.episodes.v1` folded into batches, exactly one a task.

    (nothing) --Expected--> open --the last sample's end, or Tick past the deadline--> Batch

Only GroupOpened creates state. An episode that another attempt follows is no end of its sample. A
batch holds pointers, so the grouper reads the heads of episodes and never their tokens. Imported
episodes are in no group, whatever task they name.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from odradek.infra.bus import Record
from odradek.infra.runtime.telemetry import parent_of
from odradek.schemas.codec import digest
from odradek.schemas.events import (
    Batch,
    EpisodeHead,
    Exclusion,
    GroupOpened,
    GroupsEvent,
    Pointer,
    Tick,
)
from odradek.schemas.topics import BATCHES, EPISODES
from odradek.streams.low_water import LowWater
from odradek.streams.stage import NOTHING, DeadLetter, Emit, Output, Stage
from odradek.streams.stages.episode import LONGEST_S

HELP: Final = """Run the grouper: rl.episodes.v1 becomes rl.batches.v1, one batch for each task.

A batch is written when every sample of the task has ended, or when the group's deadline has
passed. It holds pointers to episodes, and a reason for each sample that is left out.

With --driver faust a batch can be written twice after a crash; prefer kafka here.
"""
"""What `--help` of its verb says."""

LATE_SAMPLE = (DeadLetter("late_sample", "its group is closed or unknown"),)
SECOND_SAMPLE = (DeadLetter("late_sample", "an earlier episode of this sample counts"),)


class OpenGroup:
    """An open task: which of its samples have ended, and how."""

    def __init__(self, opened: GroupOpened, record: Record) -> None:
        self.opened = opened
        self.offset = record.offset
        """Of GroupOpened: a new owner must read from here."""
        self.repeat = -1
        """Offset of the last repeat of GroupOpened."""
        self.deadline = record.timestamp + min(opened.group_s, LONGEST_S)
        self.trace = parent_of(record.headers)
        self.retries = 0
        self._counting: dict[int, Pointer] = {}
        self._children: dict[int, dict[str, set[float]]] = {}
        """By sample and agent, what children are worth that are worth something of their own."""
        self._excluded: dict[int, Exclusion] = {}
        self._episodes: set[tuple[str, int]] = set()

    @property
    def complete(self) -> bool:
        """Whether every sample has ended."""
        ended = len(self._counting) + len(self._excluded)
        return ended >= self.opened.group_size

    def take(self, record: Record, head: EpisodeHead) -> str:
        """Take an episode. Returns "" if it is new, else `duplicate` or `late_sample`."""
        if (head.episode_id, head.revision) in self._episodes:
            return "duplicate"
        if head.sample in self._counting:
            return "late_sample"
        counts = head.outcome.counts and head.reward is not None
        if head.sample in self._excluded and not counts and not head.retry:
            return "late_sample"
        self._episodes.add((head.episode_id, head.revision))
        if head.retry:
            self.retries += 1
        elif counts:
            self._excluded.pop(head.sample, None)
            self._counting[head.sample] = _pointer(record, head)
            if head.children:
                self._children[head.sample] = _own_worths(head)
        else:
            self._excluded[head.sample] = Exclusion(
                sample=head.sample, reason=head.outcome.value, episode_id=head.episode_id
            )
        return ""

    def batch(self) -> Batch:
        """The group as it is now: samples that have not ended are excluded as `missing`."""
        opened = self.opened
        for sample in range(opened.group_size):
            if sample not in self._counting and sample not in self._excluded:
                self._excluded[sample] = Exclusion(sample=sample, reason="missing")
        survivors = [self._counting[sample] for sample in sorted(self._counting)]
        empty = ""
        if len(survivors) < min(2, opened.group_size):
            empty = "too_few" if survivors or self._episodes else "no_episodes"
            for pointer in survivors:
                self._excluded[pointer.sample] = Exclusion(
                    sample=pointer.sample, reason="too_few", episode_id=pointer.episode_id
                )
            survivors = []
        rewards = {pointer.reward for pointer in survivors}
        differ = _differ(self._children[p.sample] for p in survivors if p.sample in self._children)
        return Batch(
            task_id=opened.task_id,
            agent=opened.agent,
            purpose=opened.purpose,
            item=opened.item,
            group_size=opened.group_size,
            episodes=tuple(survivors),
            exclusions=tuple(self._excluded[sample] for sample in sorted(self._excluded)),
            empty_reason=empty,
            zero_variance=len(survivors) > 1 and len(rewards) == 1 and not differ,
            children_differ=differ,
            retries=self.retries,
        )


class Grouper:
    """The open groups of one partition."""

    def __init__(self) -> None:
        self.dropped: Counter[str] = Counter()
        self._open: dict[str, OpenGroup] = {}
        self._low_water = LowWater()

    def feed(self, record: Record, event: GroupsEvent) -> Sequence[Output]:
        """See `Fold`."""
        if isinstance(event, Tick):
            late = [group for group in self._open.values() if group.deadline <= record.timestamp]
            return [self._close(group, record) for group in late]
        if record.key != event.task_id:
            return (DeadLetter("wrong_key", "the record's key is not its task_id"),)
        if isinstance(event, GroupOpened):
            return self._opened(record, event)
        return self._episode(record, event)

    def low_water(self, position: int) -> int:
        """See `Fold`. Groups stand in the order of their opening, so the first is the oldest."""
        for group in self._open.values():
            return self._low_water.mark(group.offset)
        return self._low_water.mark(position)

    def overdue(self, now: float) -> bool:
        """See `Fold`."""
        return any(group.deadline <= now for group in self._open.values())

    def open(self) -> int:
        """See `Fold`."""
        return len(self._open)

    def _opened(self, record: Record, opened: GroupOpened) -> Sequence[Output]:
        if (group := self._open.get(opened.task_id)) is not None:
            group.repeat = record.offset
            return (DeadLetter("duplicate_task", "its group is still open"),)
        self._open[opened.task_id] = OpenGroup(opened, record)
        return NOTHING

    def _episode(self, record: Record, head: EpisodeHead) -> Sequence[Output]:
        if head.imported_from:
            return NOTHING  # no repeat, and no sample of any group
        if head.unattributed or head.revision:
            self.dropped["unattributed" if head.unattributed else "revision"] += 1
            return NOTHING
        group = self._open.get(head.task_id)
        if group is None:
            return LATE_SAMPLE
        if head.sample >= group.opened.group_size:
            return (DeadLetter("bad_sample", f"the group has {group.opened.group_size} samples"),)
        refusal = group.take(record, head)
        if refusal == "late_sample":
            return SECOND_SAMPLE
        if refusal:
            self.dropped["episode"] += 1
        return (self._close(group, record),) if group.complete else NOTHING

    def _close(self, group: OpenGroup, record: Record) -> Emit:
        opened = group.opened
        del self._open[opened.task_id]
        self._low_water.closed(group.offset, group.repeat)
        return Emit(
            topic=BATCHES,
            key=opened.task_id,
            event=group.batch(),
            event_id=f"{opened.task_id}/{BATCHES.name}",
            trace=group.trace,
            at=record.timestamp,
        )


def _own_worths(head: EpisodeHead) -> dict[str, set[float]]:
    """By agent, the different worths of children that are not simply their sample's."""
    worths: dict[str, set[float]] = {}
    for child in head.children:
        if child.reward is not None and (child.own or child.share != 1.0):
            worths.setdefault(child.agent, set()).add(child.reward)
    return worths


def _differ(samples: Iterable[dict[str, set[float]]]) -> bool:
    """Whether an agent's children are worth different rewards, within a sample or between two."""
    worths: dict[str, set[float]] = {}
    for sample in samples:
        for agent, rewards in sample.items():
            worths.setdefault(agent, set()).update(rewards)
    return any(len(rewards) > 1 for rewards in worths.values())


def _pointer(record: Record, head: EpisodeHead) -> Pointer:
    return Pointer(
        episode_id=head.episode_id,
        sample=head.sample,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        digest=digest(record.value or b""),
        reward=head.reward or 0.0,
        revision=head.revision,
    )


GROUP = Stage(name="group", source=EPISODES, kind=GroupsEvent, sinks=(BATCHES,), fold=Grouper)
