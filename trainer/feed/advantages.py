"""How much better than its group a sample was. Pure numpy."""

from typing import Final, Literal

import numpy as np
import numpy.typing as npt

Baseline = Literal["mean", "median", "leave_one_out"]
Numbers = npt.NDArray[np.float64]

EPSILON: Final = 1e-4
"""Added to the standard deviation, as TRL does."""
MOST: Final = 1e15
"""The largest advantage that is trained on: a gradient's norm sums up squares, in float32."""


def advantages(rewards: Numbers, *, baseline: Baseline = "mean", scale: bool = True) -> Numbers:
    """Advantages of one group's samples, shape (n,).

    A_i = (r_i - b_i) / (std(r) + 1e-4) with `scale`, r_i - b_i without.

    * mean: b = mean(r). GRPO, arXiv 2402.03300, section 4.1.2; without `scale` Dr. GRPO,
      arXiv 2503.20783.
    * median: b = median(r): one lucky sample does not make all others bad.
    * leave_one_out: b_i = mean of the others. RLOO, arXiv 2402.14740. A single sample is its own
      baseline, so its advantage is 0.

    The standard deviation is the unbiased one (n - 1), as in TRL; 0 for a single sample. Rewards
    may have any finite size; what comes of them without `scale` may not be finite (see `fits`).
    """
    n = len(rewards)
    if n == 0:
        return np.zeros(0)
    # Sums and squares of large rewards leave float64. Divided by a power of two they do not, and
    # no bit of the result is another.
    halvings = max(int(np.frexp(np.abs(rewards).max())[1]), 0)
    with np.errstate(over="ignore", invalid="ignore"):
        return _compared(np.ldexp(rewards, -halvings), halvings, baseline, scale=scale)


def _compared(rewards: Numbers, halvings: int, baseline: Baseline, *, scale: bool) -> Numbers:
    n = len(rewards)
    if baseline == "median":
        base = np.full(n, np.median(rewards))
    elif baseline == "leave_one_out" and n > 1:
        base = (rewards.sum() - rewards) / (n - 1)
    else:
        base = np.full(n, rewards.mean())
    centred = rewards - base
    if not scale:
        return np.asarray(np.ldexp(centred, halvings))
    spread = rewards.std(ddof=1) if n > 1 else 0.0
    return np.asarray(centred / (spread + np.ldexp(EPSILON, -halvings)))


def fits(advantage: float) -> bool:
    """Whether training in float32 can hold an advantage: it is neither endless there nor lost."""
    return abs(advantage) <= MOST and bool(np.float32(advantage)) == bool(advantage)


def zero_variance(rewards: Numbers) -> bool:
    """Whether all samples are equally good, so that nothing can be learned from them."""
    return len(rewards) == 0 or bool(rewards.min() == rewards.max())
