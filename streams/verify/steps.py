"""One run's line: the optimizer steps that led to its last policy, from the trainer's ledger.

A start goes on from a checkpoint. Later steps are cut off there and done again, so their entries
do not count. The next start writes the entry of a step that was durable but had none yet.
"""

from collections import Counter
from typing import Final, NamedTuple

from odradek.schemas.events import Refusal, Step
from odradek.streams.verify.findings import Findings

ROW_REASONS: Final = frozenset(
    {
        "stale",
        "too_long",
        "logprobs",
        "token_ids",
        "advantage",
        "non_finite",
        "no_memory",
        "sampling",
        "truncated",
        "uncorrected",
        "repeated",
        "fresh_share",
    }
)
"""Refusals of single rows; all others are of a whole episode, or of a whole batch."""


class RunPosition(NamedTuple):
    """How far a run has come: so many batches, and so many rows of the next one."""

    position: int = 0
    row: int = 0


def _spot_of(entry: Step) -> RunPosition:
    """Where an entry says its run stands."""
    return RunPosition(entry.position, entry.row)


class RunLedger:
    """Entries of one run in the order of the ledger, folded into what counts.

    Attributes:
        steps: The steps that count, by number, skipped ones among them.
        redone: How many were cut off by a crash and done again.
        starts: How often the trainer was started.
        last: The newest entry.
        read: The highest position that the newest start has told.
    """

    def __init__(self, run: str, findings: Findings) -> None:
        self.run = run
        self.steps: dict[int, Step] = {}
        self.redone = 0
        self.starts = 0
        self.last: Step | None = None
        self.read = 0
        self._findings = findings
        self._incarnation = 0
        self._whole: dict[str, RunPosition] = {}
        """Where each announced checkpoint stands, by digest."""
        self._resumed: list[tuple[int, str, RunPosition]] = []
        self._refused: dict[int, Counter[tuple[int, Refusal]]] = {}
        """By batch: how often each start refused what."""

    def feed(self, entry: Step) -> None:
        """Take the next entry."""
        if entry == self.last:
            return  # an append whose ack was lost, repeated: it says the same once more
        if entry.incarnation < self._incarnation:
            self._findings.problems.append(
                f"run {self.run}: start {entry.incarnation} told step {entry.step} after start "
                f"{self._incarnation} had begun: two trainers at once"
            )
            return
        if entry.incarnation > self._incarnation:
            self._begin(entry)
        self.last = entry
        # That a checkpoint is durable may be told behind later steps.
        self.read = max(self.read, entry.position)
        if entry.checkpoint:
            self._whole[entry.checkpoint] = _spot_of(entry)
        for refusal in entry.refused:
            self._refuse(entry.incarnation, refusal)
        if entry.optimized or entry.skipped:
            if entry.step in self.steps:
                self._findings.duplicated.append(f"step {entry.step} of run {self.run}")
            self.steps[entry.step] = entry

    def _begin(self, entry: Step) -> None:
        self._incarnation = entry.incarnation
        self.starts += 1
        self.read = entry.position
        for step in [step for step in self.steps if step > entry.step]:
            del self.steps[step]
            self.redone += 1
        spot = _spot_of(entry)
        if entry.resumed_from:
            self._resumed.append((entry.incarnation, entry.resumed_from, spot))
        # What was refused at or behind the spot is met again, and refused again.
        for offset in [at for at in self._refused if RunPosition(at) >= spot]:
            del self._refused[offset]
        refusals = self._refused.get(spot.position, Counter())
        for start, refusal in [*refusals]:
            if refusal.row is not None and refusal.row >= spot.row:
                del refusals[start, refusal]

    def _refuse(self, incarnation: int, refusal: Refusal) -> None:
        self._refused.setdefault(refusal.offset, Counter())[incarnation, refusal] += 1

    def refused(self, offset: int) -> Counter[tuple[str, str]]:
        """(episode, reason) of each refusal in a batch.

        Where a start went on in the middle of a batch, two starts met it, and both may have written
        the same refusal. A refusal without a row is counted so, too: old ledgers had no rows.
        """
        most: Counter[Refusal] = Counter()
        for (_, refusal), n in self._refused.get(offset, {}).items():
            most[refusal] = max(most[refusal], n)
        counted: Counter[tuple[str, str]] = Counter()
        for refusal, n in most.items():
            counted[refusal.episode_id, refusal.reason] += n
        return counted

    def reasons(self) -> Counter[str]:
        """How many refusals, by reason."""
        counts: Counter[str] = Counter()
        for offset in self._refused:
            for (_, reason), n in self.refused(offset).items():
                counts[reason] += n
        return counts

    @property
    def spot(self) -> RunPosition:
        """Where the last step of the line ended."""
        return _spot_of(self.steps[max(self.steps)]) if self.steps else RunPosition()

    def used(self) -> dict[int, int]:
        """Rows used of each batch."""
        rows: Counter[int] = Counter()
        for step in self.steps.values():
            for use in step.used:
                rows[use.offset] += use.rows
        return dict(rows)

    def check(self, *, cut: bool) -> None:
        """Find steps that are missing, that go back, or that hang on no checkpoint.

        Args:
            cut: Whether retention has taken the beginning of the ledger.
        """
        numbers = sorted(self.steps)
        first = numbers[0] if cut and numbers else 1
        for missing in sorted(set(range(first, numbers[-1] + 1 if numbers else 0)) - {*numbers}):
            self._findings.lost.append(f"step {missing} of run {self.run}")
        before = RunPosition()
        for number in numbers:
            step = self.steps[number]
            after = _spot_of(step)
            if before and not (cut and number == first):
                self._check_step(step, before, after)
            before = after
        for start, digest, spot in self._resumed:
            announced = self._whole.get(digest)
            if announced is None and not cut:
                self._findings.problems.append(
                    f"run {self.run}: start {start} goes on from a checkpoint that no step of the "
                    f"ledger announced ({digest[:12]})"
                )
            elif announced is not None and announced != spot:
                self._findings.problems.append(
                    f"run {self.run}: start {start} goes on at batch {spot.position}, row "
                    f"{spot.row}, but its checkpoint was written at batch {announced.position}, "
                    f"row {announced.row}"
                )

    def _check_step(self, step: Step, before: RunPosition, after: RunPosition) -> None:
        if after < before:
            self._findings.problems.append(
                f"run {self.run}: step {step.step} ends at batch {after.position}, row "
                f"{after.row}, before step {step.step - 1} does"
            )
        for use in step.used:
            if not before.position <= use.offset <= after.position:
                self._findings.problems.append(
                    f"run {self.run}: step {step.step} used batch {use.offset}, which does not "
                    f"lie between {before.position} and {after.position}"
                )
