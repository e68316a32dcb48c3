"""The trainer's place in the log: which rows it uses in which step, and its position.

A pure core. Rows are counted in the order of batches on the topic, and the i-th accepted row is
used in step i // rows_per_step: so staleness can be decided when a row is read, however far ahead
of its step that is, and a resumed or replayed run decides the same.
"""

from collections import deque
from dataclasses import dataclass, replace
from typing import Final

from odradek.schemas.events import Batch, BatchUse, Refusal
from odradek.trainer.feed.lineage import Lineage
from odradek.trainer.feed.rows import (
    NO_MEMORY,
    NON_FINITE,
    EpisodeGroup,
    Row,
    fault_of,
    rows_of,
)
from odradek.trainer.feed.rules import RowRules, why_not
from odradek.trainer.feed.uninformative import UninformativeBatches
from odradek.trainer.plan.replayed import ReplayedRows

REWARDS: Final = 16_384
"""Most rewards that are kept of batches that no step used, for the metrics of the next one."""


@dataclass(frozen=True)
class Position:
    """Where a line of steps stands: the first row it has not used."""

    offset: int = 0
    row: int = 0
    """Rows of the batch at `offset`, counted before refusals, that are behind us."""
    step: int = 0
    source: int = 0
    """On a mixed topic: offset on `rl.batches.v1` behind the last fresh batch that is behind us."""


@dataclass(frozen=True)
class RefusedRows:
    """A refusal in its place among the rows of its batch, for the ledger."""

    refusal: Refusal

    @property
    def passed(self) -> int:
        """Rows of the batch that are behind it: whole batches and episodes stand before all."""
        return 0 if self.refusal.row is None else self.refusal.row + 1


@dataclass(frozen=True)
class BatchEnd:
    """Where a batch ends among the rows; or several that follow each other, of which none is used.

    Attributes:
        offset: Of the (last) batch.
        digest: Of a batch of which rows wait, else "".
        batches: How many there are.
        rewards: Of their samples, where they are for training.
        revision: Of the rewards; see `Batch`.
        source: Offset on `rl.batches.v1` of what a batch of a mixed topic is, or repeats.
        fresh: Offset there behind the last fresh one of them; 0 without any.
    """

    offset: int
    digest: str = ""
    batches: int = 1
    rewards: tuple[float, ...] = ()
    revision: int = 0
    source: int | None = None
    fresh: int = 0

    @classmethod
    def of(cls, group: EpisodeGroup, *, rows: bool) -> "BatchEnd":
        """The end of a group of which rows wait, or none."""
        pointers = group.batch.episodes if group.batch.purpose == "train" else ()
        return cls(
            offset=group.offset,
            digest=group.batch.digest() if rows else "",
            rewards=tuple(pointer.reward for pointer in pointers),
            revision=group.batch.revision,
            source=mark.batch if (mark := group.batch.mixed) is not None else None,
            fresh=_fresh_behind(group.batch),
        )

    def after(self, before: "BatchEnd") -> "BatchEnd":
        """Both as one."""
        rewards = (before.rewards + self.rewards)[-REWARDS:]
        return replace(
            self,
            batches=before.batches + self.batches,
            rewards=rewards,
            fresh=max(self.fresh, before.fresh),
        )


@dataclass(frozen=True)
class ConsumedRows:
    """The position after a step, or after batches that no step used."""

    position: int
    row: int = 0
    used: tuple[BatchUse, ...] = ()
    refused: tuple[Refusal, ...] = ()
    batches: int = 0
    rewards: tuple[float, ...] = ()
    """Rewards of the samples of the training batches that were passed, equal groups included. Where
    very many were passed between two steps, only the newest are kept."""
    truncated: int = 0
    """Replies in the used rows that were cut by length."""
    altered: int = 0
    """Sampled tokens of the used rows that are not trained on because of how they were sampled."""
    source: int = 0
    """Of a mixed topic: offset on `rl.batches.v1` behind the last fresh batch that was passed."""


def _fresh_behind(batch: Batch) -> int:
    """The offset on `rl.batches.v1` behind a fresh batch of a mixed topic; 0 of any other batch."""
    return batch.mixed.batch + 1 if batch.mixed is not None and not batch.origin else 0


def _refusal(row: Row, reason: str) -> Refusal:
    return Refusal(offset=row.offset, reason=reason, episode_id=row.episode_id, row=row.index)


def _use(offset: int, rows: int, advantage: float, end: BatchEnd | None) -> BatchUse:
    """What a step says of a batch of which it used rows."""
    if end is None:
        return BatchUse(offset=offset, rows=rows)
    mixed = end.source is not None
    return BatchUse(
        offset=offset,
        rows=rows,
        digest=end.digest,
        revision=end.revision,
        source=end.source,
        advantage=advantage if mixed else 0.0,
    )


class Cursor:
    """Turns groups into accepted rows and steps into positions."""

    def __init__(self, rules: RowRules, lineage: Lineage, position: Position = Position()) -> None:
        self._rules = rules
        self._lineage = lineage
        self._start = position
        self._accepted = position.step * rules.rows_per_step
        self._at = position
        """The first row that no finished step has used."""
        self._read = position.offset
        """The first batch that has not been read."""
        self._waiting: deque[Row | RefusedRows | BatchEnd] = deque()
        """Behind `_at`, in order."""
        self.vocabulary = 0
        """How many token ids the model has; set by who has it, else rows with others are taken."""
        self._reported = 0
        """How many of the waiting refusals an idle report has already named."""
        self._fresh = position.source
        """What `ConsumedRows.source` is of all that was read."""
        self._step = ReplayedRows(rules)
        self._barren = UninformativeBatches()
        self.remark = ""
        """A line for people about the group that was fed last, or ""."""

    @property
    def position(self) -> Position:
        """The exact place of the next row to use, as a checkpoint stores it."""
        return self._at

    @property
    def read(self) -> int:
        """Offset of the first batch that has not been read."""
        return self._read

    @property
    def waiting(self) -> int:
        """Accepted rows that no step has used yet."""
        return sum(isinstance(entry, Row) for entry in self._waiting)

    def feed(self, group: EpisodeGroup) -> list[Row]:
        """The rows of a group that will be trained on; the others are noted as refused."""
        self._read = group.offset + 1
        self._fresh = max(self._fresh, _fresh_behind(group.batch))
        chosen = self._choose(group)
        rows = [entry for entry in chosen if isinstance(entry, Row)]
        reasons = (entry.refusal.reason for entry in chosen if isinstance(entry, RefusedRows))
        self.remark = self._barren.see(group.batch, reasons, rows=len(rows))
        self._waiting += chosen
        self._waiting.append(BatchEnd.of(group, rows=bool(rows)))
        if self._nothing_waits():
            self._at = replace(self._at, offset=self._read, row=0, source=self._fresh)
        return rows

    def _nothing_waits(self) -> bool:
        """Whether nothing but passed batches lies between the position and the next batch."""
        return not any(isinstance(entry, Row) for entry in self._waiting)

    def _choose(self, group: EpisodeGroup) -> list[Row | RefusedRows]:
        """The rows of a group and what is refused of it, in order, behind the position."""
        skip = self._start.row if group.offset == self._start.offset else 0
        if why := why_not(group.batch, self._rules):
            return [RefusedRows(Refusal(offset=group.offset, reason=why))]
        rules = self._rules
        candidates = rows_of(
            group,
            baseline=rules.baseline,
            scale=rules.scale,
            k=rules.pass_k,
            shaping=rules.shaping,
            weigh=rules.weigh,
            take=rules.take,
        )
        with_rows = {row.episode_id for row in candidates}
        refusals = list(group.refused)
        refusals += [
            Refusal(offset=group.offset, reason="no_tokens", episode_id=pointer.episode_id)
            for pointer, _ in group.episodes
            if pointer.episode_id not in with_rows
        ]
        # They stand before the rows: a position behind a row means that they are in the ledger.
        chosen: list[Row | RefusedRows] = (
            [] if skip else [RefusedRows(refusal) for refusal in refusals]
        )
        chosen += [self._judge(row) for row in candidates if row.index >= skip]
        return chosen

    def _judge(self, row: Row) -> Row | RefusedRows:
        """The row with its staleness, counted as accepted; or why it is refused."""
        step = self._accepted // self._rules.rows_per_step
        staleness = self._lineage.staleness(row.oldest, step)
        if reason := self._reason(row, staleness) or self._step.reason(row, step):
            return RefusedRows(_refusal(row, reason))
        self._step.take(row)
        self._accepted += 1
        return replace(row, staleness=staleness)

    def _reason(self, row: Row, staleness: int) -> str:
        """Why a row is refused, or ""; first what is wrong with it whenever it is read."""
        if fault := row.unfit or fault_of(row, self.vocabulary):
            return fault
        rules = self._rules
        if staleness > (rules.max_staleness_replayed if row.replayed else rules.max_staleness):
            return "stale"
        if self._rules.max_row_tokens and len(row.ids) > self._rules.max_row_tokens:
            return "too_long"
        return ""

    def _passable(self) -> bool:
        """Whether the next entry can be behind us before another row is used.

        A refusal before a batch's first row has no place of its own. It is passed together with
        the entry that follows it: else a run that resumes there would report it again.
        """
        for entry in self._waiting:
            if not isinstance(entry, RefusedRows) or entry.passed:
                return not isinstance(entry, Row)
        return False

    def finish_step(
        self, *, skipped: bool = False, unfit: frozenset[tuple[int, int]] = frozenset()
    ) -> ConsumedRows:
        """Count one step's rows as used; return them and the new position.

        The rows of a step that was skipped are refused `non_finite`, and rows that do not fit into
        memory `no_memory`. They are passed like any others, so a run that is resumed does not come
        to them again.

        Args:
            skipped: Whether the step moved nothing.
            unfit: Which of its rows no memory is large enough for, as (offset, index).

        Raises IndexError if fewer rows than a step takes are waiting.
        """
        left = self._rules.rows_per_step
        counts: dict[int, int] = {}
        advantages: dict[int, float] = {}
        ends: dict[int, BatchEnd] = {}
        refused: list[Refusal] = []
        rewards: list[float] = []
        batches = truncated = altered = 0
        last = self._at
        while left or self._passable():
            entry = self._waiting.popleft()
            if isinstance(entry, Row):
                left -= 1
                if (entry.offset, entry.index) in unfit:
                    refused.append(_refusal(entry, NO_MEMORY))
                elif skipped:
                    refused.append(_refusal(entry, NON_FINITE))
                else:
                    counts[entry.offset] = counts.get(entry.offset, 0) + 1
                    worth = advantages.get(entry.offset, 0.0)
                    advantages[entry.offset] = worth + abs(entry.advantage)
                    truncated += entry.truncated
                    altered += entry.altered
                last = replace(last, offset=entry.offset, row=entry.index + 1)
            elif isinstance(entry, RefusedRows):
                # The position moves behind it: a run that resumes there does not report it again.
                last = replace(last, offset=entry.refusal.offset, row=entry.passed)
                if self._reported:
                    self._reported -= 1
                else:
                    refused.append(entry.refusal)
            else:
                batches += entry.batches
                ends[entry.offset] = entry
                rewards += entry.rewards
                source = max(last.source, entry.fresh)
                last = replace(last, offset=entry.offset + 1, row=0, source=source)
        for entry in self._waiting:
            if isinstance(entry, BatchEnd) and entry.offset in counts:
                ends.setdefault(entry.offset, entry)
        self._at = replace(last, step=last.step + 1)
        used = tuple(
            _use(offset, rows, advantages[offset] / rows, ends.get(offset))
            for offset, rows in counts.items()
        )
        at = self._at
        return ConsumedRows(
            at.offset,
            at.row,
            used,
            tuple(refused),
            batches,
            tuple(rewards),
            truncated,
            altered,
            at.source,
        )

    def passed_idle(self) -> ConsumedRows:
        """The position while the trainer waits for rows.

        Rows that wait for the rest of their step count as passed here: they are taken, and the
        dispatcher must send more for the step ever to be complete. A checkpoint's position knows
        better, and a later step's position is never before this one.
        """
        refused = [entry.refusal for entry in self._waiting if isinstance(entry, RefusedRows)]
        fresh = refused[self._reported :]
        self._join_reported()
        return ConsumedRows(self._read, refused=tuple(fresh), source=self._fresh)

    def _join_reported(self) -> None:
        """Once all refusals are reported, join the ends of batches that have no row.

        Evaluations, or the equal groups of a policy that has learned all it can, may come for days
        while the last rows of a step do not.
        """
        waiting: deque[Row | RefusedRows | BatchEnd] = deque()
        refused: list[RefusedRows] = []
        self._reported = 0
        for entry in self._waiting:
            if isinstance(entry, RefusedRows):
                refused.append(entry)
                continue
            if isinstance(entry, Row) or entry.digest:
                waiting += refused
                self._reported += len(refused)
                waiting.append(entry)
            elif waiting and isinstance(before := waiting[-1], BatchEnd) and not before.digest:
                waiting[-1] = entry.after(before)
            else:
                waiting.append(entry)
            refused.clear()
        self._waiting = waiting


def describe(position: Position) -> str:
    """A position for people."""
    return f"step {position.step}, batch {position.offset}, row {position.row}"
