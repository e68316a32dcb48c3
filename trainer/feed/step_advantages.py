"""Advantages of a whole step's rows: what needs more than a group, or a reference. Pure numpy.

Each function is of the rows of one step alone, and which rows these are follows from the log. So a
run that is resumed, or a replay, learns from the same advantages.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from odradek.trainer.feed.rows import Row

Numbers = npt.NDArray[np.float64]
LEAST_VARIANCE: Final = 1e-8
"""Added to the variance of a step, as verl does; OpenRLHF keeps the variance at or above it."""


@dataclass(frozen=True)
class StepRules:
    """What is done to the advantages of a step.

    Attributes:
        baseline: `batch` subtracts the mean of the step; with `leave_one_out` KL is compared like
            the reward.
        scale: `batch` divides by the deviation of the step.
        kl: Weight of the KL in the reward; 0 where it is in the loss or nowhere.
    """

    baseline: str = "mean"
    scale: str = "group"
    kl: float = 0.0

    @property
    def normalises(self) -> bool:
        """Whether rows are compared with the others of their step."""
        return "batch" in {self.baseline, self.scale}


NO_RULES: Final = StepRules()
"""Advantages stay what their group has made of them."""


def step_advantages(
    rows: Sequence[Row], rules: StepRules, kls: Sequence[npt.NDArray[Any]] | None = None
) -> list[Row]:
    """The rows with the advantage of each token, where the rules change any.

    KL in the reward is taken from each token's own return, A_t = A - kl sum_{s >= t} k_s
    (REINFORCE++, arXiv 2501.03262, version 9, equation 4). With `leave_one_out` a sample is one
    action and loses the KL of all its tokens, K: A - kl (K - mean of the others' K), over the
    samples of its group that are in the step (RLOO, arXiv 2402.14740; TRL's RLOOTrainer).

    `batch` subtracts the mean over the step's tokens, as they weigh, and divides by their
    deviation: (A_t - mean) / sqrt(var + 1e-8), with the variance of the population, as OpenRLHF
    does (REINFORCE++, equation 5; verl's variance is the unbiased one).

    Args:
        rows: Of one step.
        rules: What to do.
        kls: An estimate of each sampled token's KL, shape (m_i,) for each row.
    """
    worth = [np.full(row.sampled, row.advantage) for row in rows]
    if rules.kl > 0 and kls is not None:
        penalties = _of_samples(rows, kls) if rules.baseline == "leave_one_out" else _to_go(kls)
        worth = [a - rules.kl * penalty for a, penalty in zip(worth, penalties, strict=True)]
    elif not rules.normalises:
        return list(rows)
    if rules.normalises:
        worth = _normalised(worth, [row.weight for row in rows], divide=rules.scale == "batch")
    return [_with(row, values) for row, values in zip(rows, worth, strict=True)]


def _to_go(kls: Sequence[npt.NDArray[Any]]) -> list[Numbers]:
    """What comes from each token on."""
    return [np.cumsum(values[::-1], dtype=np.float64)[::-1] for values in kls]


def _of_samples(rows: Sequence[Row], kls: Sequence[npt.NDArray[Any]]) -> list[Numbers]:
    """Of each row's sample, minus the mean of the others of its group; the same for each token."""
    groups: dict[int, dict[str, float]] = {}
    for row, values in zip(rows, kls, strict=True):
        group = groups.setdefault(row.offset, {})
        total = group.get(row.episode_id, 0.0) + float(values.sum(dtype=np.float64))
        group[row.episode_id] = total
    penalties = []
    for row in rows:
        group = groups[row.offset]
        own, others = group[row.episode_id], len(group) - 1
        mean = (sum(group.values()) - own) / others if others else 0.0
        penalties.append(np.full(row.sampled, own - mean))
    return penalties


def _normalised(
    worth: Sequence[Numbers], weights: Sequence[float], *, divide: bool
) -> list[Numbers]:
    tokens = sum(w * len(a) for w, a in zip(weights, worth, strict=True)) or 1
    mean = sum(w * a.sum() for w, a in zip(weights, worth, strict=True)) / tokens
    centred = [a - mean for a in worth]
    if not divide:
        return centred
    squares = sum(w * np.square(a).sum() for w, a in zip(weights, centred, strict=True))
    return [a / np.sqrt(squares / tokens + LEAST_VARIANCE) for a in centred]


def _with(row: Row, values: Numbers) -> Row:
    spread = np.zeros(len(row.ids), dtype=np.float32)
    spread[row.mask] = values
    return replace(row, token_advantages=spread)
