"""Rows that were drawn again: how many of them a step may have, and none of them twice.

A pure core. A step begins with nothing in it, and a position is always that of a step, so a run
that is resumed decides the same.
"""

from typing import Protocol


class StepRow(Protocol):
    """What of a row decides whether a step may have it."""

    @property
    def episode_id(self) -> str:
        """Which episode it is from."""
        ...

    @property
    def index(self) -> int:
        """Of the row within its batch."""
        ...

    @property
    def replayed(self) -> bool:
        """Whether its batch was drawn again."""
        ...


class ReplayRules(Protocol):
    """The rules of `RowRules` that are about rows that were drawn again."""

    @property
    def rows_per_step(self) -> int:
        """Accepted rows in each optimizer step."""
        ...

    @property
    def fresh_share(self) -> float:
        """Least share of them that are fresh."""
        ...

    @property
    def corrected(self) -> bool:
        """Whether the loss has importance weights."""
        ...


class ReplayedRows:
    """The rows of the step that is being filled, as far as it matters which they are."""

    def __init__(self, rules: ReplayRules) -> None:
        self._rules = rules
        self._most = int(rules.rows_per_step * (1 - rules.fresh_share) + 1e-9)
        self._step = -1
        self._replayed = 0
        self._taken: set[tuple[str, int]] = set()

    def reason(self, row: StepRow, step: int) -> str:
        """Why a row may not be in a step because it was drawn again, or "".

        `uncorrected`: the loss has no importance weights. `repeated`: the step has it already.
        `fresh_share`: one more would leave too few fresh ones.
        """
        if step != self._step:
            self._step, self._replayed = step, 0
            self._taken.clear()
        if not row.replayed:
            return ""
        if not self._rules.corrected:
            return "uncorrected"
        if (row.episode_id, row.index) in self._taken:
            return "repeated"
        return "fresh_share" if self._replayed >= self._most else ""

    def take(self, row: StepRow) -> None:
        """Count a row as one of the step that was asked about last."""
        self._replayed += row.replayed
        self._taken.add((row.episode_id, row.index))
