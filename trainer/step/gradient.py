"""The gradient of one optimizer step, in as many forward passes as memory asks for.

Out of memory is an event and no crash. A micro-batch that does not fit leaves half a gradient
behind, so the step's gradient is computed anew from its beginning, in micro-batches of half as many
tokens: it comes out the same. That costs time once, since what fits is remembered for later steps
and later starts. A single row that does not fit is left out, and the ledger names it.
"""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from accelerate.utils.memory import should_reduce_batch_size

from odradek.trainer.feed.cursor import ConsumedRows
from odradek.trainer.feed.rows import NO_MEMORY, NON_FINITE, Row
from odradek.trainer.losses.preparation import Preparation, RowSurvey
from odradek.trainer.plan.budget import TokenBudget
from odradek.trainer.plan.micro_batches import MicroBatch, plan
from odradek.trainer.plan.retries import fit_rows
from odradek.trainer.step.losses import StepTotals
from odradek.trainer.step.packing import totals_of

FILE: Final = "micro_tokens.json"
"""In a run's folder: what has turned out to fit."""

NO_ROOM: Final = ("CUDA error: out of memory", "STATUS_ALLOC_FAILED")
"""What CUDA and its libraries say that accelerate does not know."""

log = logging.getLogger("odradek")

Backward = Callable[[Sequence[Row], StepTotals], None]
"""Adds the share of a micro-batch to the gradient."""
Survey = Callable[[Sequence[Row]], Sequence[RowSurvey]]
"""What the preparation of a step needs of each row of a micro-batch."""
NO_PREPARATION: Final = Preparation()
"""Rows and totals are what they are."""


class StepGradient:
    """Computes gradients of steps.

    Args:
        budget: Most tokens of a micro-batch.
        backward: Adds the share of a micro-batch to the gradient; may run out of memory.
        forget: Drops the gradient so far, and the memory that it took.
        learned: Called with a budget that is smaller than before.
        preparation: What is to be done before the gradient.
        survey: A forward pass for it, where it needs one; may run out of memory.
    """

    def __init__(
        self,
        budget: TokenBudget,
        backward: Backward,
        forget: Callable[[], None],
        learned: Callable[[TokenBudget], None] = lambda _: None,
        preparation: Preparation = NO_PREPARATION,
        survey: Survey = lambda _: (),
    ) -> None:
        self.budget = budget
        self.batches: list[MicroBatch] = []
        """Of the step that was computed last; none where no row of it fits."""
        self._backward = backward
        self._forget = forget
        self._learned = learned
        self._preparation = preparation
        self._survey = survey

    def compute(self, rows: Sequence[Row]) -> tuple[Row, ...]:
        """Leave the gradient of a step in the model; returns the rows that fit nowhere."""
        self.batches = []
        fitted = fit_rows(
            rows, self.budget, self._attempt, forget=self._drop, halved=self._say_halved
        )
        self.budget = fitted.budget
        for row in fitted.unfit:
            log.warning(
                "a row of %d tokens does not fit into memory and is refused (no_memory); "
                "max_row_tokens below that refuses its like before they are tried",
                len(row.ids),
            )
        return fitted.unfit

    def _drop(self) -> None:
        self._forget()
        self.batches = []

    def _say_halved(self, budget: TokenBudget, tokens: int) -> None:
        log.warning(
            "%d tokens did not fit into memory: micro-batches have %d from here on",
            *(tokens, budget.learned),
        )
        self._learned(budget)

    def _attempt(self, rows: Sequence[Row], budget: TokenBudget) -> MicroBatch | None:
        """The micro-batch for which memory did not do, if there is one."""
        totals = totals_of(rows)
        made = plan([row.ids for row in rows], [row.offset for row in rows], budget=budget.learned)
        (self.batches,) = map(list, made.ranks)
        surveys: dict[int, RowSurvey] = {}
        for batch in self.batches if self._preparation.surveys else ():
            if not _fits(self._note, surveys, batch, [rows[place] for place in batch.rows]):
                return batch
        in_order = [surveys[place] for place in sorted(surveys)]
        prepared, totals = self._preparation.prepared(rows, totals, in_order)
        for batch in self.batches:
            if not _fits(self._backward, [prepared[place] for place in batch.rows], totals):
                return batch
        return None

    def _note(self, surveys: dict[int, RowSurvey], batch: MicroBatch, rows: Sequence[Row]) -> None:
        surveys.update(zip(batch.rows, self._survey(rows), strict=True))


def _fits(work: Callable[..., None], *of: Any) -> bool:
    """Whether there was memory enough for some work. Any other error is passed on."""
    try:
        work(*of)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        return False  # outside of this block nothing holds the tensors of its frames
    return True


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that there is no memory left, on whatever device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or should_reduce_batch_size(error):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_ROOM)


def kept(folder: Path) -> TokenBudget | None:
    """What earlier starts of a run learned, if they did."""
    try:
        value = json.loads((folder / FILE).read_bytes())
        return TokenBudget(asked=int(value["asked"]), learned=int(value["learned"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be read (%s): what fits is learned anew", folder / FILE, error)
        return None


def keep(folder: Path, budget: TokenBudget) -> None:
    """Note what was learned. A lost note is learned again, so nothing waits for the disk."""
    partial = folder / f"{FILE}.partial"
    partial.write_text(json.dumps({"asked": budget.asked, "learned": budget.learned}) + "\n")
    partial.rename(folder / FILE)


def say_skipped(step: int, passed: ConsumedRows, fault: str) -> None:
    """Say why a step moved nothing, and which batches its rows were of."""
    if fault == NO_MEMORY:
        log.warning("step %d is skipped: none of its rows fits into memory", step)
        return
    rows = [refusal.offset for refusal in passed.refused if refusal.reason == NON_FINITE]
    log.warning(
        "step %d is skipped, nothing is moved: its %s would be no number; %d rows of batches "
        "%d to %d are refused",
        *(step, fault, len(rows), min(rows), max(rows)),
    )
