"""Losses of small parts: objectives of each token, ratios, importance weights, penalties, sums.

`trainer.loss_table` names the twelve, and `trainer.recipes` says what goes together. A `Loss` puts
an objective, its ratio and its sum together; `step.losses` computes it for a micro-batch. Nothing
here knows of models: all are functions of tensors.
"""

from odradek.trainer.losses.inputs import LossInputs, LossOptions, StepTotals
from odradek.trainer.losses.loss import Loss
from odradek.trainer.losses.sums import by_length, by_row, by_row_sum, by_token

__all__ = [
    "Loss",
    "LossInputs",
    "LossOptions",
    "StepTotals",
    "by_length",
    "by_row",
    "by_row_sum",
    "by_token",
]
