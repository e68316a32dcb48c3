"""What a loss is computed from: sampled tokens, the size of their step, and the options."""

from dataclasses import dataclass
from typing import Final

import torch

from odradek.trainer.loss_table import Correction, KlForm

Tensor = torch.Tensor
NO_BOUND: Final = 1e9
"""No ratio is as large, since `ratios.LOG_RATIO` bounds them all: a cap from here on caps nothing.
torch itself refuses caps that float32 cannot hold, as a person may write for "none"."""


@dataclass(frozen=True)
class LossInputs:
    """The sampled tokens of a micro-batch; per-token tensors have the shape (m,).

    Attributes:
        logprobs: Under the trained policy, with gradient.
        old_logprobs: Under the sampler, as the engine gave them.
        advantages: Of each token; mostly that of its row.
        row: Which row each token is of, 0 to n_rows - 1.
        n_rows: Rows in the micro-batch.
        reference: Under the reference policy, for the KL term; None without.
        weights: w_i of each row, shape (n_rows,); None where each weighs 1.
        proximal: Under the proximal policy, for a correction; None where that is the trained one.
        entropy: Of the trained policy at each token, in nats; with gradient for the entropy bonus,
            without for a mask of the tokens with the most; None where neither is in use.
        chosen: Tokens that the policy term is of, bool; None for all. `policy_loss` sets it.
    """

    logprobs: Tensor
    old_logprobs: Tensor
    advantages: Tensor
    row: Tensor
    n_rows: int
    reference: Tensor | None = None
    weights: Tensor | None = None
    proximal: Tensor | None = None
    entropy: Tensor | None = None
    chosen: Tensor | None = None

    @property
    def near(self) -> Tensor:
        """Log probabilities under the proximal policy, without gradient, shape (m,)."""
        return self.logprobs.detach() if self.proximal is None else self.proximal

    def weighed(self, values: Tensor) -> Tensor:
        """Per-token values, each times the weight of its row, shape (m,)."""
        return values if self.weights is None else values * self.weights[self.row]

    def row_sum(self, values: Tensor) -> Tensor:
        """The sum of per-token values over each row, shape (n_rows,)."""
        zeros = torch.zeros(self.n_rows, dtype=values.dtype, device=values.device)
        return zeros.index_add(0, self.row, values)

    def row_mean(self, values: Tensor) -> Tensor:
        """The mean of per-token values over each row, shape (n_rows,)."""
        return self.row_sum(values) / self.row_sum(torch.ones_like(values)).clamp(min=1)


@dataclass(frozen=True)
class StepTotals:
    """The optimizer step that a micro-batch is a part of.

    Attributes:
        tokens: T, the weights of its rows times their sampled tokens.
        rows: N, the weights of its rows.
        entropy_floor: With `top_entropy`, the policy term is of tokens with at least this entropy.
        chosen: The same as `tokens`, of those alone; None where all are.
    """

    tokens: float
    rows: float
    entropy_floor: float = float("-inf")
    chosen: float | None = None


@dataclass(frozen=True)
class LossOptions:
    """The parameters of all losses.

    Attributes:
        epsilon_low: e, how far below 1 a ratio counts.
        epsilon_high: E, how far above 1.
        kl: Weight of the KL term against the reference; 0 leaves it out.
        tis: C, the upper bound of importance weights; 0 leaves the correction out, and the clip is
            then of the ratio to the sampler instead of that to the proximal policy.
        fixed_length: The constant L of dr_grpo, in tokens.
        correction: What becomes of a weight beyond its bounds, and what it is of.
        tis_low: c, the lower bound of importance weights.
        dual_clip: D, the highest ratio that counts where the advantage is negative; 0 for none.
        kl_form: Which estimator, and where it goes.
        entropy: Weight of the entropy bonus; 0 leaves it out.
        top_entropy: The share of tokens, those with the most entropy, that the policy term is of.
    """

    epsilon_low: float = 0.2
    epsilon_high: float = 0.2
    kl: float = 0.0
    tis: float = 0.0
    fixed_length: int = 256
    correction: Correction = "token_truncate"
    tis_low: float = 0.0
    dual_clip: float = 0.0
    kl_form: KlForm = "k3"
    entropy: float = 0.0
    top_entropy: float = 1.0

    @property
    def highest(self) -> float:
        """1 + E, the highest ratio that counts."""
        return min(1 + self.epsilon_high, NO_BOUND)

    @property
    def reach(self) -> float:
        """E, for what is no ratio."""
        return min(self.epsilon_high, NO_BOUND)

    @property
    def ceiling(self) -> float:
        """D, where there is any."""
        return min(self.dual_clip, NO_BOUND)

    @property
    def cap(self) -> float:
        """C, where there is any."""
        return min(self.tis, NO_BOUND)
