"""One run's steps that count, in the order of the ledger: pure.

`streams/verify/steps.py` says what they are. A start goes on from a checkpoint. Steps after it are
done again, so those that a sink has of them are taken back. Here each entry is judged as it comes,
since a sink shows steps while the run goes on.
"""

from dataclasses import dataclass

from odradek.infra.app.exports.sink import StepPoint
from odradek.schemas.events import Step


@dataclass(frozen=True)
class LineChange:
    """What an entry of the ledger changes."""

    rewind: int | None = None
    """The step after which all others are taken back, first of all."""
    point: StepPoint | None = None
    """The step that is added."""


NO_CHANGE = LineChange()


class RunLine:
    """Folds the entries of a run; those of other runs change nothing.

    Args:
        run: Its name.
        incarnation: The newest start that was met; 0 for none.
        step: The last step that counts; 0 for none.
    """

    def __init__(self, run: str, incarnation: int = 0, step: int = 0) -> None:
        self.run = run
        self.incarnation = incarnation
        self.step = step

    def feed(self, entry: Step, at: float) -> LineChange:
        """Take the next entry, which the ledger got at Unix time `at`."""
        if entry.run != self.run or entry.incarnation < self.incarnation:
            return NO_CHANGE  # another run, or a trainer that a later start has taken over from
        counts = entry.optimized or entry.skipped
        rewind = None
        if entry.incarnation > self.incarnation:
            self.incarnation = entry.incarnation
            kept = entry.step - 1 if counts else entry.step
            if kept < self.step:
                rewind = self.step = max(kept, 0)
        if not counts or entry.step <= self.step:
            # Without a step, or an append whose ack was lost, repeated.
            return LineChange(rewind)
        self.step = entry.step
        return LineChange(rewind, StepPoint(entry.step, at, _metrics_of(entry)))


def _metrics_of(entry: Step) -> dict[str, float]:
    """The metrics of a step, and what else of its entry is a number worth a curve.

    A name that cannot be printed is left out: tools differ in what they make of it.
    """
    return {
        **{name: value for name, value in entry.metrics.items() if name and name.isprintable()},
        "version": float(entry.version),
        "position": float(entry.position),
        "skipped": float(entry.skipped),
        "rows_refused": float(sum(refusal.row is not None for refusal in entry.refused)),
    }
