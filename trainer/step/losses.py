"""Policy losses, each one small function with its formula and its paper.

Notation: t counts sampled tokens, i rows (one row per linear run of tokens), r_t is
exp(log p(t) - log q(t)) with the trained policy p and the sampler q, A_i the advantage, e and E
the lower and upper clip. Every such difference of logarithms is bounded (LOG_RATIO).

w_i is the weight of a row: one over the number of rows of its episode, or 1 for all (`weigh`).
N = sum_i w_i, the episodes of the step, or its rows; T = sum_i w_i |o_i|, its tokens as they weigh.
A function returns what one micro-batch adds to the loss of the whole optimizer step: N and T are
the step's, not its own, so micro-batches of unequal size weigh what they should.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

import torch

from odradek.infra.runtime.imports import import_entry
from odradek.trainer.loss_table import LOSSES

Tensor = torch.Tensor
LOG_RATIO: Final = 20.0
"""The largest difference of two log probabilities that counts, either way, in nats. exp leaves
float32 from 88 on, and at 20 one token already weighs as much as 5e8; beyond it has no gradient."""
NO_BOUND: Final = 1e9
"""No ratio is as large, since LOG_RATIO bounds them all: a cap from here on caps nothing. torch
itself refuses caps that float32 cannot hold, as a person may write for "none"."""


@dataclass(frozen=True)
class LossInputs:
    """The sampled tokens of a micro-batch; per-token tensors have the shape (m,).

    Attributes:
        logprobs: Under the trained policy, with gradient.
        old_logprobs: Under the sampler, as the engine gave them.
        advantages: Of each token's row.
        row: Which row each token is of, 0 to n_rows - 1.
        n_rows: Rows in the micro-batch.
        reference: Under the reference policy, for the KL term; None without.
        weights: w_i of each row, shape (n_rows,); None where each weighs 1.
        proximal: Under the proximal policy, for TIS; None where that is the trained one.
    """

    logprobs: Tensor
    old_logprobs: Tensor
    advantages: Tensor
    row: Tensor
    n_rows: int
    reference: Tensor | None = None
    weights: Tensor | None = None
    proximal: Tensor | None = None

    @property
    def near(self) -> Tensor:
        """Log probabilities under the proximal policy, without gradient, shape (m,)."""
        return self.logprobs.detach() if self.proximal is None else self.proximal

    def weighed(self, values: Tensor) -> Tensor:
        """Per-token values, each times the weight of its row, shape (m,)."""
        return values if self.weights is None else values * self.weights[self.row]

    def row_mean(self, values: Tensor) -> Tensor:
        """The mean of per-token values over each row, shape (n_rows,)."""
        ones = torch.zeros(self.n_rows, dtype=values.dtype, device=values.device)
        length = ones.index_add(0, self.row, torch.ones_like(values)).clamp(min=1)
        return ones.index_add(0, self.row, values) / length


@dataclass(frozen=True)
class StepTotals:
    """The optimizer step that a micro-batch is a part of.

    Attributes:
        tokens: T, the weights of its rows times their sampled tokens.
        rows: N, the weights of its rows.
    """

    tokens: float
    rows: float


@dataclass(frozen=True)
class LossOptions:
    """The parameters of all losses.

    Attributes:
        epsilon_low: e, how far below 1 a ratio counts.
        epsilon_high: E, how far above 1.
        kl: Weight of the KL term against the reference; 0 leaves it out.
        tis: C, the cap of truncated importance sampling; 0 leaves it out, and the clip is then of
            the ratio to the sampler instead of that to the proximal policy.
        fixed_length: The constant L of dr_grpo, in tokens.
    """

    epsilon_low: float = 0.2
    epsilon_high: float = 0.2
    kl: float = 0.0
    tis: float = 0.0
    fixed_length: int = 256

    @property
    def highest(self) -> float:
        """1 + E, the highest ratio that counts."""
        return min(1 + self.epsilon_high, NO_BOUND)

    @property
    def cap(self) -> float:
        """C, where there is any."""
        return min(self.tis, NO_BOUND)


def clipped(terms: LossInputs, shape: LossOptions, ratio: Tensor) -> Tensor:
    """-min(r A, clip(r, 1 - e, 1 + E) A), per token. PPO, arXiv 1707.06347, equation 7."""
    near = torch.clamp(ratio, 1 - shape.epsilon_low, shape.highest)
    return -torch.min(ratio * terms.advantages, near * terms.advantages)


def log_ratio(above: Tensor, below: Tensor) -> Tensor:
    """The logarithm of p / q, at most LOG_RATIO either way: what every exponential here is of."""
    return _bounded(above - below)


def _bounded(distance: Tensor) -> Tensor:
    return distance.clamp(-LOG_RATIO, LOG_RATIO)


def _token_ratio(terms: LossInputs) -> Tensor:
    """r_t, shape (m,)."""
    return torch.exp(log_ratio(terms.logprobs, terms.old_logprobs))


def _row_ratio(terms: LossInputs) -> Tensor:
    """GSPO's s_i, for each token of its row."""
    mean = terms.row_mean(terms.logprobs - terms.old_logprobs)
    return torch.exp(_bounded(mean))[terms.row]


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


def grpo(terms: LossInputs, shape: LossOptions) -> Tensor:
    """Mean over rows of the mean over their tokens of the clipped objective.

    L = 1/N sum_i w_i 1/|o_i| sum_t -min(r_t A_i, clip(r_t) A_i).
    DeepSeekMath, arXiv 2402.03300, equation 3; with row = output.
    """
    return clipped(terms, shape, _token_ratio(terms))


def dapo(terms: LossInputs, shape: LossOptions) -> Tensor:
    """Mean over all tokens of the step, with its own upper clip.

    L = 1/T sum_i w_i sum_t -min(r_t A_i, clip(r_t, 1 - e, 1 + E) A_i).
    DAPO, arXiv 2503.14476, equation 8. Its overlong shaping is left out on purpose: rewards are
    the judges' business.
    """
    return clipped(terms, shape, _token_ratio(terms))


def dr_grpo(terms: LossInputs, shape: LossOptions) -> Tensor:
    """Sum over tokens divided by a constant, so that length earns nothing.

    L = 1/(N L) sum_i w_i sum_t -min(r_t A_i, clip(r_t) A_i), meant for advantages without std.
    Understanding R1-Zero-Like Training, arXiv 2503.20783, section 3.2.
    """
    return clipped(terms, shape, _token_ratio(terms))


def gspo(terms: LossInputs, shape: LossOptions) -> Tensor:
    """One ratio per row: the geometric mean of its tokens' ratios.

    L = 1/N sum_i w_i -min(s_i A_i, clip(s_i) A_i), s_i = exp(1/|o_i| sum_t log r_t).
    GSPO, arXiv 2507.18071, equations 5 and 7.
    """
    return clipped(terms, shape, _row_ratio(terms))


def cispo(terms: LossInputs, shape: LossOptions) -> Tensor:
    """Clip the weight, not the gradient: every token keeps teaching.

    L = 1/T sum_i w_i sum_t -sg(min(r_t, 1 + E)) A_i log p(t), with sg = stop gradient.
    MiniMax-M1, arXiv 2506.13585, equations 4 and 5.
    """
    weight = torch.clamp(_token_ratio(terms), max=shape.highest).detach()
    return -weight * terms.advantages * terms.logprobs


def _kl_to_reference(terms: LossInputs) -> Tensor:
    """exp(d) - d - 1 with d = log p_ref(t) - log p(t), per token: unbiased and never negative.

    The k3 estimator, http://joschu.net/blog/kl-approx.html; GRPO's equation 4.
    """
    assert terms.reference is not None
    distance = log_ratio(terms.reference, terms.logprobs)
    return torch.exp(distance) - distance - 1


def truncated_importance(terms: LossInputs, shape: LossOptions) -> Tensor:
    """min(p'(t) / q(t), C), per token and without gradient, p' the proximal policy.

    Corrects for an engine that computes other probabilities than the trainer and for a sampler that
    lies steps behind: this factor says how likely p' was to sample the token. The loss itself then
    has r_t = p(t) / p'(t), so its clip bounds how far the last update may have moved a token.
    TIS, fengyao.notion.site/off-policy-rl; decoupled PPO, AReaL, arXiv 2505.24298, equation 5.
    """
    return torch.exp(log_ratio(terms.near, terms.old_logprobs)).clamp(max=shape.cap)


def clips(name: str, terms: LossInputs, shape: LossOptions) -> tuple[Tensor, Tensor]:
    """Where the clip of a loss acts below and above, each bool of shape (m,).

    Of the ratio that the loss itself clips: of whole rows in gspo, to the proximal policy with TIS.
    There the token has no gradient (in cispo, whose clip is of the weight, none that grows).
    """
    judged = replace(terms, old_logprobs=terms.near) if shape.tis > 0 else terms
    loss = loss_of(name)
    ratio = loss.ratio(judged)
    low, high = ratio < 1 - shape.epsilon_low, ratio > shape.highest
    if loss.clips_weight:
        return torch.zeros_like(low), high
    return low & (terms.advantages < 0), high & (terms.advantages > 0)


Aggregate = Callable[[Tensor, LossInputs, StepTotals, LossOptions], Tensor]


@dataclass(frozen=True)
class Loss:
    """A policy loss.

    Attributes:
        each: What each token adds, shape (m,), with gradient.
        aggregate: How these become one scalar of the whole step.
        ratio: What its clip is of, shape (m,).
        clips_weight: Whether the clip is of the weight and not of the objective.
    """

    each: Callable[[LossInputs, LossOptions], Tensor]
    aggregate: Aggregate
    ratio: Callable[[LossInputs], Tensor] = _token_ratio
    clips_weight: bool = False


GRPO: Final = Loss(grpo, by_row)
DAPO: Final = Loss(dapo, by_token)
DR_GRPO: Final = Loss(dr_grpo, by_length)
GSPO: Final = Loss(gspo, by_row, ratio=_row_ratio)
CISPO: Final = Loss(cispo, by_token, clips_weight=True)


@cache
def loss_of(name: str) -> Loss:
    """The loss that the table names so."""
    loss: Loss = import_entry(LOSSES[name].place)
    return loss


def policy_loss(name: str, terms: LossInputs, whole: StepTotals, shape: LossOptions) -> Tensor:
    """The micro-batch's share of the step's loss, a scalar with gradient.

    Args:
        name: One of `loss_table.LOSSES`.
        terms: The micro-batch.
        whole: The step's size, for the division.
        shape: Clips, KL, TIS.
    """
    loss = loss_of(name)
    if shape.tis > 0:
        weight = truncated_importance(terms, shape)
        values = weight * loss.each(replace(terms, old_logprobs=terms.near), shape)
    else:
        values = loss.each(terms, shape)
    if shape.kl > 0:
        values = values + shape.kl * _kl_to_reference(terms)
    return loss.aggregate(values, terms, whole, shape)
