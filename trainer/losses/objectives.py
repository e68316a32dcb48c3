"""Objectives: what each sampled token adds to a loss, before it is summed up.

Each returns the shape (m,), with gradient. That of a whole row stands at each of its tokens.
"""

import torch

from odradek.trainer.losses.inputs import LossInputs, LossOptions, Tensor
from odradek.trainer.losses.ratios import log_ratio, row_ratio, token_ratio, whole_ratio

SAPO_POSITIVE, SAPO_NEGATIVE = 1.0, 1.05
"""SAPO's temperatures by the sign of the advantage, as in the paper and in TRL."""


def clipped(terms: LossInputs, shape: LossOptions, ratio: Tensor) -> Tensor:
    """-min(min(r, D) A, clip(r, 1 - e, 1 + E) A), per token.

    PPO, arXiv 1707.06347, equation 7. D bounds what a negative advantage may weigh: dual clip,
    arXiv 1912.09729, equation 5. Since D > 1 + E, it changes nothing where A is positive.
    """
    near = torch.clamp(ratio, 1 - shape.epsilon_low, shape.highest)
    if shape.dual_clip > 0:
        ratio = torch.clamp(ratio, max=shape.ceiling)
    return -torch.min(ratio * terms.advantages, near * terms.advantages)


def by_tokens(terms: LossInputs, shape: LossOptions) -> Tensor:
    """The clipped objective of r_t: grpo, dapo, dr_grpo, bnpo and reinforce_pp."""
    return clipped(terms, shape, token_ratio(terms))


def by_rows(terms: LossInputs, shape: LossOptions) -> Tensor:
    """The clipped objective of s_i: gspo and luspo."""
    return clipped(terms, shape, row_ratio(terms))


def by_whole_rows(terms: LossInputs, shape: LossOptions) -> Tensor:
    """The clipped objective of R_i: rloo."""
    return clipped(terms, shape, whole_ratio(terms))


def clipped_weight(terms: LossInputs, shape: LossOptions) -> Tensor:
    """-sg(min(r_t, 1 + E)) A log p(t), with sg = stop gradient: cispo clips no gradient."""
    weight = torch.clamp(token_ratio(terms), max=shape.highest).detach()
    return -weight * terms.advantages * terms.logprobs


def soft_gate(terms: LossInputs, shape: LossOptions) -> Tensor:
    """-4/tau sigmoid(tau (r_t - 1)) A, with tau by the sign of A: sapo has no hard clip."""
    del shape
    warm, cold = (torch.full_like(terms.advantages, t) for t in (SAPO_POSITIVE, SAPO_NEGATIVE))
    tau = torch.where(terms.advantages > 0, warm, cold)
    return -torch.sigmoid(tau * (token_ratio(terms) - 1)) * 4 / tau * terms.advantages


def geometric(terms: LossInputs, shape: LossOptions) -> Tensor:
    """-A exp(mean over a row of its clipped log r_t): gmpo.

    log r_t is clipped to [-e, E], and only on the side that A would push it to. With `top_entropy`
    the mean is of the chosen tokens.
    """
    distance = log_ratio(terms.logprobs, terms.old_logprobs)
    near = torch.clamp(distance, -shape.epsilon_low, shape.reach)
    up = terms.advantages > 0
    kept = torch.where(up, torch.minimum(distance, near), torch.maximum(distance, near))
    counted = torch.ones_like(kept) if terms.chosen is None else terms.chosen.to(kept.dtype)
    mean = terms.row_sum(kept * counted) / terms.row_sum(counted).clamp(min=1)
    return -torch.exp(mean)[terms.row] * terms.advantages


def divergence_mask(terms: LossInputs, shape: LossOptions) -> Tensor:
    """-M_t r_t A: dppo leaves out tokens whose probability has moved too far, and no others.

    M_t = 0 where p(t) - q(t) > E and A > 0, or p(t) - q(t) < -e and A < 0: the total variation
    between the two policies as they tell this token from all others. arXiv 2602.04879, equations 12
    and 13.
    """
    low, high = moved_too_far(terms, shape)
    kept = ~(low | high)
    return -token_ratio(terms) * terms.advantages * kept


def moved_too_far(terms: LossInputs, shape: LossOptions) -> tuple[Tensor, Tensor]:
    """The tokens that dppo leaves out, with a falling and with a rising probability, bool."""
    moved = torch.exp(terms.logprobs.detach()) - torch.exp(terms.old_logprobs)
    low = (moved < -shape.epsilon_low) & (terms.advantages < 0)
    return low, (moved > shape.reach) & (terms.advantages > 0)
