"""Ratios of two policies' probabilities, of tokens and of whole rows. All have the shape (m,)."""

from typing import Final

import torch

from odradek.trainer.losses.inputs import LossInputs, Tensor

LOG_RATIO: Final = 20.0
"""The largest difference of two log probabilities that counts, either way, in nats. exp leaves
float32 from 88 on, and at 20 one token already weighs as much as 5e8; beyond it has no gradient."""


def bounded(distance: Tensor) -> Tensor:
    """A difference of logarithms, at most LOG_RATIO either way."""
    return distance.clamp(-LOG_RATIO, LOG_RATIO)


def log_ratio(above: Tensor, below: Tensor) -> Tensor:
    """The logarithm of p / q, at most LOG_RATIO either way: what every exponential here is of."""
    return bounded(above - below)


def token_ratio(terms: LossInputs) -> Tensor:
    """r_t = p(t) / q(t)."""
    return torch.exp(log_ratio(terms.logprobs, terms.old_logprobs))


def row_ratio(terms: LossInputs) -> Tensor:
    """s_i = exp(1/|o_i| sum_t log r_t), for each token of its row. GSPO, arXiv 2507.18071."""
    mean = terms.row_mean(terms.logprobs - terms.old_logprobs)
    return torch.exp(bounded(mean))[terms.row]


def whole_ratio(terms: LossInputs) -> Tensor:
    """R_i = exp(sum_t log r_t), for each token of its row: the whole row is one action."""
    whole = terms.row_sum(terms.logprobs - terms.old_logprobs)
    return torch.exp(bounded(whole))[terms.row]
