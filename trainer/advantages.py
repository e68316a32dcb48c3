"""How much better than its group a sample was. Pure numpy."""

from typing import Final, Literal

import numpy as np
import numpy.typing as npt

Baseline = Literal["mean", "median", "leave_one_out"]
Numbers = npt.NDArray[np.float64]

EPSILON: Final = 1e-4
"""Added to the standard deviation, as TRL does."""


def advantages(rewards: Numbers, *, baseline: Baseline = "mean", scale: bool = True) -> Numbers:
    """Advantages of one group's samples, shape (n,).

    A_i = (r_i - b_i) / (std(r) + 1e-4) with `scale`, r_i - b_i without.

    * mean: b = mean(r). GRPO, arXiv 2402.03300, section 4.1.2; without `scale` Dr. GRPO,
      arXiv 2503.20783.
    * median: b = median(r): one lucky sample does not make all others bad.
    * leave_one_out: b_i = mean of the others. RLOO, arXiv 2402.14740. A single sample is its own
      baseline, so its advantage is 0.

    The standard deviation is the unbiased one (n - 1), as in TRL; 0 for a single sample.
    """
    n = len(rewards)
    if n == 0:
        return np.zeros(0)
    if baseline == "median":
        base = np.full(n, np.median(rewards))
    elif baseline == "leave_one_out" and n > 1:
        base = (rewards.sum() - rewards) / (n - 1)
    else:
        base = np.full(n, rewards.mean())
    centred = rewards - base
    if not scale:
        return centred
    spread = rewards.std(ddof=1) if n > 1 else 0.0
    return np.asarray(centred / (spread + EPSILON))


def zero_variance(rewards: Numbers) -> bool:
    """Whether all samples are equally good, so that nothing can be learned from them."""
    return len(rewards) == 0 or bool(np.ptp(rewards) == 0.0)
