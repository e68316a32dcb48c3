"""A step before its gradient: what advantages and entropy masks need of all of its rows at once.

Mostly nothing. KL in the reward needs the reference model's log probabilities before advantages
are compared, and `top_entropy` needs every token's entropy before one is chosen: both are a forward
pass without gradient over the whole step, in the same micro-batches as its gradient.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from odradek.trainer.feed.rows import Row
from odradek.trainer.feed.step_advantages import NO_RULES, StepRules, step_advantages
from odradek.trainer.losses.inputs import StepTotals, Tensor
from odradek.trainer.losses.penalties import estimate
from odradek.trainer.losses.top_entropy import floor_of


@dataclass(frozen=True)
class RowSurvey:
    """What a forward pass without gradient found of a row's m sampled tokens.

    Attributes:
        kl: The estimate of each, shape (m,); None where the reward has no KL.
        entropy: Of each in nats, shape (m,); None without `top_entropy`.
    """

    kl: npt.NDArray[np.float32] | None = None
    entropy: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Preparation:
    """What is to be done before a step's gradient.

    Attributes:
        rules: For its advantages.
        kl_form: The estimator of the KL in the reward.
        top_entropy: The share of tokens that the policy term is of.
    """

    rules: StepRules = NO_RULES
    kl_form: str = "k1_reward"
    top_entropy: float = 1.0

    @property
    def reads_reference(self) -> bool:
        """Whether it needs log probabilities under the reference policy."""
        return self.rules.kl > 0

    @property
    def reads_entropy(self) -> bool:
        """Whether it needs entropies of the trained policy."""
        return self.top_entropy < 1

    @property
    def surveys(self) -> bool:
        """Whether it needs a forward pass."""
        return self.reads_reference or self.reads_entropy

    def surveyed(
        self, rows: int, row: Tensor, old: Tensor, reference: Tensor | None, entropy: Tensor | None
    ) -> list[RowSurvey]:
        """A micro-batch's tensors as surveys of its rows.

        Args:
            rows: How many there are.
            row: Which row each sampled token is of, shape (m,), in order.
            old: Log probabilities under the sampler, shape (m,).
            reference: Under the reference policy.
            entropy: Of the trained policy.
        """
        lengths = torch.bincount(row, minlength=rows).tolist()

        def split(values: Tensor | None) -> list[npt.NDArray[np.float32]] | list[None]:
            if values is None:
                return [None] * rows
            return [part.numpy() for part in torch.split(values.detach().float().cpu(), lengths)]

        kl = None if reference is None else estimate(self.kl_form, reference, old)
        return [RowSurvey(*of_row) for of_row in zip(split(kl), split(entropy), strict=True)]

    def prepared(
        self, rows: Sequence[Row], totals: StepTotals, surveys: Sequence[RowSurvey] = ()
    ) -> tuple[list[Row], StepTotals]:
        """The rows with their tokens' advantages, and the totals with the entropy floor."""
        kls = [survey.kl for survey in surveys if survey.kl is not None]
        made = step_advantages(rows, self.rules, kls or None)
        entropies = [survey.entropy for survey in surveys if survey.entropy is not None]
        if not self.reads_entropy or not entropies:
            return made, totals
        floor, chosen = floor_of(entropies, [row.weight for row in rows], self.top_entropy)
        return made, replace(totals, entropy_floor=floor, chosen=chosen)
