"""Each loss in plain torch over the rows of a step: written from the papers, without the trainer.

A step is a list of `PlainRow`s, and the functions loop over them. Nothing is packed, bounded or cut into
micro-batches.
"""

from dataclasses import dataclass
from typing import Any

import torch

Tensor = torch.Tensor
LOW, HIGH, LENGTH, DUAL, FLOOR, CAP = 0.2, 0.28, 256, 1.5, 0.8, 1.3


@dataclass(frozen=True)
class PlainRow:
    """One row: per-token tensors of the shape (n,), its advantage and its weight."""

    new: Tensor
    old: Tensor
    near: Tensor
    reference: Tensor
    entropy: Tensor
    worth: Tensor
    weight: float = 1.0


def step_of(lengths: Any = (5, 1, 9, 3), seed: int = 0, weights: Any = None) -> list[PlainRow]:
    """Rows under four policies, in float64; `new` and `entropy` have gradients."""
    random = torch.Generator().manual_seed(seed)

    def near(values: Tensor, by: float) -> Tensor:
        noise = torch.randn(len(values), generator=random, dtype=torch.float64)
        return (values + by * noise).clamp(max=-1e-3)

    rows = []
    for place, n in enumerate(lengths):
        old = -2 * torch.rand(n, generator=random, dtype=torch.float64) - 0.01
        proximal = near(old, 0.08)
        new = near(proximal, 0.3).requires_grad_()
        entropy = torch.rand(n, generator=random, dtype=torch.float64).requires_grad_()
        worth = torch.full((n,), (1.2, -0.7, 0.4, -1.0)[place % 4], dtype=torch.float64)
        weight = 1.0 if weights is None else weights[place]
        rows.append(PlainRow(new, old, proximal, near(old, 0.2), entropy, worth, weight))
    return rows


def importance(row: PlainRow, correction: str, bounds: tuple[float, float]) -> Tensor:
    """What the policy term is multiplied by."""
    low, high = bounds
    ratio = (row.near - row.old).exp()
    if correction.startswith("sequence"):
        ratio = (row.near - row.old).sum().exp().expand(len(row.old))
    if correction.endswith("mask"):
        return torch.where((ratio >= low) & (ratio <= high), ratio, 0.0)
    return ratio.clamp(low, high)


def kl_of(row: PlainRow, form: str) -> Tensor:
    """The estimators of Schulman's note."""
    d = row.reference - row.new
    return {"k1": -d, "k2": d**2 / 2, "k3": d.exp() - d - 1}[form[:2]]


def objective(loss: str, row: PlainRow, before: Tensor, chosen: Tensor, dual: float) -> Any:
    """(what each token adds, the ratio) with `before` as the policy that the ratio is to."""
    d, a = row.new - before, row.worth
    ratio = d.exp()
    if loss in {"gspo", "luspo"}:
        ratio = d.mean().exp().expand(len(d))
    if loss == "rloo":
        ratio = d.sum().exp().expand(len(d))
    if loss == "cispo":
        return -ratio.clamp(max=1 + HIGH).detach() * a * row.new * chosen, ratio
    if loss == "sapo":
        tau = 1.0 if a[0] > 0 else 1.05
        return -4 / tau / (1 + (-tau * (ratio - 1)).exp()) * a * chosen, ratio
    if loss == "gmpo":
        cut = d.clamp(max=HIGH) if a[0] > 0 else d.clamp(min=-LOW)
        mean = (cut * chosen).sum() / max(float(chosen.sum()), 1.0)
        return -(mean.exp() * a), ratio
    if loss == "dppo":
        moved = row.new.exp() - before.exp()
        gone = moved > HIGH if a[0] > 0 else moved < -LOW
        return -ratio * a * ~gone, ratio
    surrogate = torch.min(ratio * a, ratio.clamp(1 - LOW, 1 + HIGH) * a)
    if dual:
        surrogate = torch.where(a < 0, torch.max(surrogate, dual * a), surrogate)
    return -surrogate * chosen, ratio


def plain_loss(
    combination: Any,
    rows: list[PlainRow],
    *,
    kl: float = 0.3,
    bounds: tuple[float, float] = (FLOOR, CAP),
) -> Tensor:
    """The loss of a step, for a `recipes.Combination`: with a correction, a KL form and terms."""
    terms, correction, form = combination.terms, combination.correction, combination.kl_form
    chosen = [torch.ones_like(row.new) for row in rows]
    if "top_entropy" in terms:
        every = torch.cat([row.entropy for row in rows]).detach()
        threshold = every.quantile(1 - 0.4)
        chosen = [(row.entropy >= threshold).double() for row in rows]
    values = []
    for row, these in zip(rows, chosen, strict=True):
        before = row.near if correction else row.old
        value, ratio = objective(
            combination.loss, row, before, these, DUAL if "dual_clip" in terms else 0.0
        )
        if correction:
            value = value * importance(row, correction, bounds)
        if form and not form.endswith("reward"):
            value = value + kl * kl_of(row, form) * (ratio if form.endswith("weighted") else 1.0)
        values.append(value)
    total = added_up(combination.loss, values, [row.weight for row in rows])
    if "entropy" in terms:
        weighed = [r.weight * (r.entropy * c).sum() for r, c in zip(rows, chosen, strict=True)]
        count = sum(r.weight * float(c.sum()) for r, c in zip(rows, chosen, strict=True))
        total = total - 0.05 * sum(weighed) / count
    return total


def added_up(loss: str, values: list[Tensor], weights: list[float]) -> Any:
    """How a loss makes one number of its rows."""
    sums = [w * v.sum() for w, v in zip(weights, values, strict=True)]
    if loss in {"dapo", "bnpo", "cispo", "dppo"}:
        return sum(sums) / sum(w * len(v) for w, v in zip(weights, values, strict=True))
    if loss == "dr_grpo":
        return sum(sums) / sum(weights) / LENGTH
    if loss == "luspo":
        return sum(sums) / sum(weights)
    return sum(w * v.mean() for w, v in zip(weights, values, strict=True)) / sum(weights)


def gradient_of(loss: Tensor, rows: list[PlainRow]) -> Tensor:
    """With respect to log probabilities and entropies, as one vector."""
    leaves = [leaf for row in rows for leaf in (row.new, row.entropy)]
    made = torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True)
    return torch.cat(
        [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(made, leaves, strict=True)]
    )
