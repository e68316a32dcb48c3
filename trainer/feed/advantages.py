"""How much better than its group a sample was. Pure numpy."""

from collections.abc import Callable
from math import comb
from typing import Annotated, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator

from odradek.infra.errors import NoSuchName
from odradek.infra.runtime.imports import find, parts
from odradek.trainer.errors import InvalidAdvantages

Numbers = npt.NDArray[np.float64]
Scale = Literal["group", "batch", "none"]
"""By what advantages are divided: the standard deviation in the group, in the step, or nothing."""

EPSILON: Final = 1e-4
"""Added to the standard deviation, as TRL does."""
MOST: Final = 1e15
"""The largest advantage that is trained on: a gradient's norm sums up squares, in float32."""
PASS_K: Final = 4
"""Samples of which one is to succeed, in `pass_at_k`."""


def advantages(
    rewards: Numbers,
    *,
    baseline: str = "mean",
    scale: bool = True,
    k: int = PASS_K,
    success: float = 1.0,
) -> Numbers:
    """Advantages of one group's samples, shape (n,).

    A_i = (r_i - b_i) / (std(r) + 1e-4) with `scale`, r_i - b_i without.

    * mean: b = mean(r). GRPO, arXiv 2402.03300, section 4.1.2; without `scale` Dr. GRPO,
      arXiv 2503.20783.
    * median: b = median(r): one lucky sample does not make all others bad. MC-GRPO,
      arXiv 2601.22582. The paper also divides by the median absolute deviation and leaves the
      median's own sample out of the loss; neither is done here.
    * leave_one_out: b_i = mean of the others. RLOO, arXiv 2402.14740. A single sample is its own
      baseline, so its advantage is 0.
    * batch: b = 0 here; `step_advantages` subtracts the mean of the step. REINFORCE++,
      arXiv 2501.03262.
    * pass_at_k: see `_pass_at_k`. Pass@k training, arXiv 2508.10751, section 2.4.
    * max_rl: A_i = (r_i - mean(r)) / mean(r), for rewards that are not negative; 0 where the mean
      is not above 0. MaxRL, arXiv 2602.02710, algorithm 1. `scale` changes nothing.
    * `module:function`: what a person's function makes of the rewards, shape (n,), as it is.

    The standard deviation is the unbiased one (n - 1), as in TRL; 0 for a single sample. Rewards
    may have any finite size; what comes of them without `scale` may not be finite (see `fits`).

    Args:
        rewards: Of the samples.
        baseline: A name of BASELINES, or `module:function`.
        scale: Whether to divide by the group's standard deviation.
        k: Of `pass_at_k`.
        success: The reward from which on a sample counts as a success, in `pass_at_k`.

    Raises:
        NoSuchName: There is no such function.
        InvalidAdvantages: It returned something else than n finite numbers.
    """
    if len(rewards) == 0:
        return np.zeros(0)
    if baseline not in BASELINES:
        return _own(baseline, rewards)
    if baseline == "pass_at_k":
        return _pass_at_k(rewards >= success, k, scale=scale)
    # Sums and squares of large rewards leave float64. Divided by a power of two they do not, and
    # no bit of the result is another.
    halvings = max(int(np.frexp(np.abs(rewards).max())[1]), 0)
    with np.errstate(over="ignore", invalid="ignore"):
        return _compared(np.ldexp(rewards, -halvings), halvings, baseline, scale=scale)


def _mean(rewards: Numbers) -> Numbers:
    return np.full(len(rewards), rewards.mean())


def _median(rewards: Numbers) -> Numbers:
    return np.full(len(rewards), np.median(rewards))


def _others(rewards: Numbers) -> Numbers:
    n = len(rewards)
    return (rewards.sum() - rewards) / (n - 1) if n > 1 else _mean(rewards)


BASELINES: Final[dict[str, Callable[[Numbers], Numbers]]] = {
    "mean": _mean,
    "median": _median,
    "leave_one_out": _others,
    "batch": np.zeros_like,
    "pass_at_k": _mean,
    "max_rl": _mean,
}
"""What each sample is compared with, shape (n,)."""
WITHIN_GROUP: Final = frozenset(BASELINES) - {"batch"}
"""Those that make nothing of a group whose samples were all worth the same."""


def _compared(rewards: Numbers, halvings: int, baseline: str, *, scale: bool) -> Numbers:
    centred = rewards - BASELINES[baseline](rewards)
    if baseline == "max_rl":
        mean = rewards.mean()
        return centred / mean if mean > 0 else np.zeros_like(centred)
    if not scale or baseline == "batch":
        return np.asarray(np.ldexp(centred, halvings))
    spread = rewards.std(ddof=1) if len(rewards) > 1 else 0.0
    return np.asarray(centred / (spread + np.ldexp(EPSILON, -halvings)))


def _pass_at_k(successes: npt.NDArray[np.bool_], k: int, *, scale: bool) -> Numbers:
    """The mean advantage of all groups of k samples that a sample is in.

    A group of k is worth 1 if one of them succeeds, else 0; the mean of all comb(n, k) groups is
    R = 1 - comb(m, k) / comb(n, k) with m failures, their deviation s = sqrt(R (1 - R)). A success
    makes each of its groups succeed: (1 - R) / s. A failure does not:
    (1 - R - comb(m - 1, k - 1) / comb(n - 1, k - 1)) / s. Without `scale`, s = 1.
    Where every group of k succeeds, or none does, all advantages are 0. k is at most n.
    arXiv 2508.10751, equations 11, 12, 14 and 15.
    """
    n, failures = len(successes), int((~successes).sum())
    k = min(k, n)
    worth = 1 - comb(failures, k) / comb(n, k)
    if worth in {0, 1}:
        return np.zeros(n)
    lost = comb(failures - 1, k - 1) / comb(n - 1, k - 1)
    spread = (worth * (1 - worth)) ** 0.5 if scale else 1.0
    return np.where(successes, 1 - worth, 1 - worth - lost) / spread


def _own(target: str, rewards: Numbers) -> Numbers:
    """What a person's function makes of a copy of the rewards."""
    made = np.asarray(find(target)(rewards.copy()), dtype=np.float64)
    if made.shape != rewards.shape or not np.isfinite(made).all():
        raise InvalidAdvantages(
            f"{target} made advantages of the shape {made.shape}, or some that are not finite, of "
            f"{len(rewards)} rewards: return one finite number for each"
        )
    return made


def fits(advantage: float) -> bool:
    """Whether training in float32 can hold an advantage: it is neither endless there nor lost."""
    return abs(advantage) <= MOST and bool(np.float32(advantage)) == bool(advantage)


def zero_variance(rewards: Numbers) -> bool:
    """Whether all samples are equally good, so that nothing can be learned from them."""
    return len(rewards) == 0 or bool(rewards.min() == rewards.max())


def uninformative(
    rewards: Numbers, *, baseline: str = "mean", k: int = PASS_K, success: float = 1.0
) -> bool:
    """Whether a baseline makes nothing of a group: no advantage is another than 0.

    With `batch` a group is compared with the rest of its step, so each says something.
    """
    if baseline in {"mean", "median", "leave_one_out"}:
        return zero_variance(rewards)
    if baseline == "batch":
        return len(rewards) == 0
    return not advantages(rewards, baseline=baseline, k=k, success=success).any()


def _baseline(name: str) -> str:
    if name not in BASELINES:
        try:
            parts(name)
        except NoSuchName:
            names = ", ".join(BASELINES)
            line = (
                f"there is no baseline {name!r}: give one of {names}, or your own module:function"
            )
            raise ValueError(line) from None
    return name


Baseline = Annotated[str, AfterValidator(_baseline)]
"""A name of BASELINES, or `module:function`."""
