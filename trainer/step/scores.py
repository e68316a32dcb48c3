"""A micro-batch under all policies that its loss asks for: the trained one, and the frozen ones."""

from collections.abc import Callable
from typing import Any

import torch

from odradek.trainer.losses.preparation import Preparation, RowSurvey
from odradek.trainer.settings import TrainerSettings
from odradek.trainer.step.logprobs import TokenScores
from odradek.trainer.step.losses import (
    LossInputs,
    StepTotals,
    options_of,
    policy_loss,
    preparation_of,
)
from odradek.trainer.step.packing import PackedRows
from odradek.trainer.step.proximal import ProximalPolicy


class StepScores:
    """Makes a micro-batch's share of the step's loss.

    Args:
        settings: Of the run.
        model: The trained policy; anything that `score` takes.
        score: Scores a micro-batch under a model.
        reference: The reference policy, where there is KL.
        proximal: The proximal policy, where there is a correction.
    """

    def __init__(
        self,
        settings: TrainerSettings,
        model: Any,
        score: Callable[[Any, PackedRows], TokenScores],
        reference: Any = None,
        proximal: ProximalPolicy | None = None,
    ) -> None:
        self.options = options_of(settings)
        self.preparation: Preparation = preparation_of(settings)
        self._loss = settings.loss
        self._model = model
        self._score = score
        self._reference = reference
        self._proximal = proximal

    @torch.no_grad()
    def _judged_by(self, frozen: Any, packed: PackedRows) -> torch.Tensor | None:
        """Log probabilities of the sampled tokens under another policy, where there is one."""
        return None if frozen is None else self._score(frozen, packed).logprobs

    def share(
        self, packed: PackedRows, totals: StepTotals
    ) -> tuple[torch.Tensor, LossInputs, TokenScores]:
        """A micro-batch's share of the step's loss: shares add up, they are not averaged."""
        scores = self._score(self._model, packed)
        shape = self.options
        terms = LossInputs(
            logprobs=scores.logprobs,
            old_logprobs=packed.old_logprobs,
            advantages=packed.advantages,
            row=packed.row,
            n_rows=len(packed.weights),
            reference=self._judged_by(self._reference if shape.kl > 0 else None, packed),
            weights=packed.weights,
            proximal=self._judged_by(self._proximal and self._proximal.model, packed),
            entropy=scores.entropy if shape.entropy > 0 or shape.top_entropy < 1 else None,
        )
        return policy_loss(self._loss, terms, totals, shape), terms, scores

    @torch.no_grad()
    def survey(self, packed: PackedRows) -> list[RowSurvey]:
        """What the step's preparation needs of a micro-batch, row by row; without gradient."""
        wanted = self.preparation
        return wanted.surveyed(
            len(packed.weights),
            packed.row,
            packed.old_logprobs,
            self._judged_by(self._reference, packed) if wanted.reads_reference else None,
            self._score(self._model, packed).entropy if wanted.reads_entropy else None,
        )
