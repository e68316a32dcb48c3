"""Terms beside the policy's: the distance to the reference policy, and the entropy bonus.

With d = log p_ref(t) - log p(t), the estimators of KL(p || p_ref) from one token are k1 = -d,
k2 = d^2/2 and k3 = exp(d) - d - 1. http://joschu.net/blog/kl-approx.html
"""

import torch

from odradek.trainer.losses.inputs import LossInputs, LossOptions, StepTotals, Tensor
from odradek.trainer.losses.ratios import log_ratio


def estimate(form: str, reference: Tensor, logprobs: Tensor) -> Tensor:
    """k1, k2 or k3 of each token, as `form` begins, shape (m,)."""
    distance = log_ratio(reference, logprobs)
    if form.startswith("k1"):
        return -distance
    if form.startswith("k2"):
        return distance.square() / 2
    return torch.exp(distance) - distance - 1


def to_reference(terms: LossInputs, shape: LossOptions, ratio: Tensor) -> Tensor:
    """The KL term of each token, shape (m,).

    A form that ends in `weighted` is multiplied by the loss' own ratio, with gradient: unbiased
    where the rows were sampled by another policy. DeepSeek-V3.2, arXiv 2512.02556, equation 7.
    """
    assert terms.reference is not None
    values = estimate(shape.kl_form, terms.reference, terms.logprobs)
    return values * ratio if shape.kl_form.endswith("weighted") else values


def entropy_bonus(terms: LossInputs, whole: StepTotals) -> Tensor:
    """The mean entropy over the step's chosen tokens, as they weigh; one micro-batch's share."""
    assert terms.entropy is not None
    values = terms.entropy if terms.chosen is None else terms.entropy * terms.chosen
    return terms.weighed(values).sum() / (
        (whole.tokens if whole.chosen is None else whole.chosen) or 1
    )
