"""How per-token values become one micro-batch's share of the step's loss, a scalar.

The divisors are the step's, not the micro-batch's, so shares of unequal size add up.
"""

from collections.abc import Callable

from odradek.trainer.losses.inputs import LossInputs, LossOptions, StepTotals, Tensor

Aggregate = Callable[[Tensor, LossInputs, StepTotals, LossOptions], Tensor]


def by_token(values: Tensor, terms: LossInputs, whole: StepTotals, shape: LossOptions) -> Tensor:
    """1/T sum_i w_i sum_t of per-token values."""
    del shape
    return terms.weighed(values).sum() / (whole.tokens or 1)


def by_row(values: Tensor, terms: LossInputs, whole: StepTotals, shape: LossOptions) -> Tensor:
    """1/N sum_i w_i 1/|o_i| sum_t of per-token values."""
    del shape
    return terms.row_mean(terms.weighed(values)).sum() / (whole.rows or 1)


def by_length(values: Tensor, terms: LossInputs, whole: StepTotals, shape: LossOptions) -> Tensor:
    """1/(N L) sum_i w_i sum_t of per-token values."""
    return terms.weighed(values).sum() / ((whole.rows or 1) * shape.fixed_length)


def by_row_sum(values: Tensor, terms: LossInputs, whole: StepTotals, shape: LossOptions) -> Tensor:
    """1/N sum_i w_i sum_t of per-token values: a row weighs as much as it is long."""
    del shape
    return terms.weighed(values).sum() / (whole.rows or 1)
