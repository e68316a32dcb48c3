"""What is tried again after memory ran out: the same step, in smaller parts. Pure.

A micro-batch that does not fit leaves half a gradient behind, so the whole step is tried anew, with
half as many tokens together. A single row that does not fit is left out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from odradek.trainer.plan.budget import TokenBudget
from odradek.trainer.plan.micro_batches import MicroBatch

R = TypeVar("R")


@dataclass(frozen=True)
class FittedRows(Generic[R]):
    """What a step came to.

    Attributes:
        fitting: Rows of which the step was computed.
        unfit: Rows that fit nowhere.
        budget: What has turned out to fit.
    """

    fitting: tuple[R, ...]
    unfit: tuple[R, ...]
    budget: TokenBudget


def fit_rows(
    rows: Sequence[R],
    budget: TokenBudget,
    attempt: Callable[[Sequence[R], TokenBudget], MicroBatch | None],
    *,
    forget: Callable[[], None],
    halved: Callable[[TokenBudget, int], None] = lambda *_: None,
) -> FittedRows[R]:
    """Try a step until all that is left of it fits.

    Args:
        rows: Of the step.
        budget: To begin with.
        attempt: Computes the step; returns the micro-batch for which memory did not do, if any.
        forget: Called before each further attempt.
        halved: Called with each smaller budget, and the tokens that did not fit.
    """
    fitting, unfit = list(rows), []
    while fitting:
        failed = attempt(fitting, budget)
        if failed is None:
            break
        forget()
        if len(failed.rows) == 1:
            unfit.append(fitting.pop(failed.rows[0]))
            continue
        budget = budget.halved(failed.tokens)
        halved(budget, failed.tokens)
    return FittedRows(tuple(fitting), tuple(unfit), budget)
