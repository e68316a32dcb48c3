"""Where the clip of a loss acts: there a token has no gradient. For the metrics.

Each returns two bool tensors of the shape (m,): below and above.
"""

from collections.abc import Callable

import torch

from odradek.trainer.losses.inputs import LossInputs, LossOptions, Tensor
from odradek.trainer.losses.ratios import log_ratio, row_ratio, token_ratio, whole_ratio

Clips = Callable[[LossInputs, LossOptions], tuple[Tensor, Tensor]]


def _of_ratio(ratio: Tensor, terms: LossInputs, shape: LossOptions) -> tuple[Tensor, Tensor]:
    low, high = ratio < 1 - shape.epsilon_low, ratio > shape.highest
    falling, rising = terms.advantages < 0, terms.advantages > 0
    if shape.dual_clip > 0:
        return low & falling, (high & rising) | ((ratio > shape.ceiling) & falling)
    return low & falling, high & rising


def token_clips(terms: LossInputs, shape: LossOptions) -> tuple[Tensor, Tensor]:
    """Of the ratio of each token."""
    return _of_ratio(token_ratio(terms), terms, shape)


def row_clips(terms: LossInputs, shape: LossOptions) -> tuple[Tensor, Tensor]:
    """Of the mean ratio of whole rows."""
    return _of_ratio(row_ratio(terms), terms, shape)


def whole_clips(terms: LossInputs, shape: LossOptions) -> tuple[Tensor, Tensor]:
    """Of the ratio of whole rows."""
    return _of_ratio(whole_ratio(terms), terms, shape)


def weight_clips(terms: LossInputs, shape: LossOptions) -> tuple[Tensor, Tensor]:
    """Of a weight: it cuts what the token weighs, and takes no gradient."""
    ratio = token_ratio(terms)
    return torch.zeros_like(ratio, dtype=torch.bool), ratio > shape.highest


def log_clips(terms: LossInputs, shape: LossOptions) -> tuple[Tensor, Tensor]:
    """Of the logarithm of each token's ratio."""
    distance = log_ratio(terms.logprobs, terms.old_logprobs)
    low = (distance < -shape.epsilon_low) & (terms.advantages < 0)
    return low, (distance > shape.reach) & (terms.advantages > 0)


def no_clips(terms: LossInputs, shape: LossOptions) -> tuple[Tensor, Tensor]:
    """Of nothing: the loss has no clip."""
    del shape
    nowhere = torch.zeros_like(terms.advantages, dtype=torch.bool)
    return nowhere, nowhere
