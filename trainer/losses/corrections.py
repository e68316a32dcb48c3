"""Importance weights for rows that another policy sampled than the one that is trained.

An engine computes other probabilities than the trainer, and the sampler lies steps behind. A weight
says how likely the proximal policy p' was to sample what the sampler q has: w = p'/q, without
gradient, of each token or of a whole row. The loss itself then has r_t = p(t)/p'(t), so its clip
bounds how far the last update may have moved a token (decoupled PPO, AReaL, arXiv 2505.24298,
equation 5).

Truncated (TIS): min(max(w, c), C). fengyao.notion.site/off-policy-rl.
Masked (MIS, IcePop): w between c and C, else 0. TRL's `token_mask` and `sequence_mask`; IcePop,
arXiv 2510.18855, is the first with c = 0.5 and C = 5.
"""

import torch

from odradek.trainer.losses.inputs import LossInputs, LossOptions, Tensor
from odradek.trainer.losses.ratios import bounded


def _raw_weights(terms: LossInputs, shape: LossOptions) -> Tensor:
    """p'/q of each token, or the product over its row, shape (m,)."""
    distance = terms.near - terms.old_logprobs
    if shape.correction.startswith("sequence"):
        distance = terms.row_sum(distance)[terms.row]
    return torch.exp(bounded(distance))


def importance_weights(terms: LossInputs, shape: LossOptions) -> Tensor:
    """What each token's policy term is multiplied by, shape (m,)."""
    weights = _raw_weights(terms, shape)
    if shape.correction.endswith("mask"):
        return weights.masked_fill((weights < shape.tis_low) | (weights > shape.cap), 0.0)
    return weights.clamp(min=shape.tis_low, max=shape.cap)


def beyond(terms: LossInputs, shape: LossOptions) -> Tensor:
    """The tokens whose weight is cut or masked, bool, shape (m,)."""
    weights = _raw_weights(terms, shape)
    low = weights < shape.tis_low
    return low | (
        weights > shape.cap if shape.correction.endswith("mask") else weights >= shape.cap
    )
