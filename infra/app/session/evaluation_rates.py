"""How often tasks are solved, and how sure that is: pure.

pass@k is the chance that at least one of k samples of a task succeeds. It is estimated from n >= k
samples, without bias: 1 - C(n - c, k) / C(n, k) where c of n succeeded (Chen et al. 2021, arXiv
2107.03374, equation 1). An estimate over tasks is the mean of theirs, as there.

Its interval is Wilson's score interval (Wilson 1927) with the number of tasks as its n. Samples of
one task depend on each other, so they do not count as more. A task's estimate lies between 0 and 1.
Of such numbers with a given mean those that are only 0 or 1 have the largest variance, and these
the interval is made for. So for k > 1 it is rather too wide than too narrow, and where all tasks
are solved, or none, it still has a width.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod, sqrt
from typing import Final

Z_95: Final = 1.959963984540054
"""Standard deviations that hold 95 % of a normal distribution."""


@dataclass(frozen=True)
class PassRate:
    """pass@k over tasks, and its 95 % interval."""

    value: float
    low: float
    high: float


def pass_at_k(n: int, n_solved: int, k: int) -> float:
    """The chance that one of k samples succeeds, from n of which `n_solved` did.

    Raises ValueError unless 0 <= n_solved <= n and 1 <= k <= n.
    """
    if not 0 <= n_solved <= n or not 1 <= k <= n:
        raise ValueError(f"pass@{k} of {n_solved} in {n} samples")
    if n - n_solved < k:
        return 1.0
    # The quotient of the two binomials, without numbers that leave float64.
    return 1.0 - prod(1.0 - k / i for i in range(n - n_solved + 1, n + 1))


def wilson(share: float, n: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson's interval of a share of n independent trials; (0, 1) without any."""
    if not n:
        return 0.0, 1.0
    middle = share + z * z / (2 * n)
    half = z * sqrt(max(share * (1 - share), 0.0) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max((middle - half) / scale, 0.0), min((middle + half) / scale, 1.0)


def pass_rates(tasks: Iterable[Sequence[bool]]) -> dict[int, PassRate]:
    """pass@k over tasks, for each power of two that all of them have samples for.

    Args:
        tasks: Whether each sample of a task succeeded. Tasks without samples say nothing.
    """
    solved = [(len(samples), sum(samples)) for samples in tasks if samples]
    if not solved:
        return {}
    rates = {}
    k, fewest = 1, min(n for n, _ in solved)
    while k <= fewest:
        mean = sum(pass_at_k(n, c, k) for n, c in solved) / len(solved)
        rates[k] = PassRate(mean, *wilson(mean, len(solved)))
        k *= 2
    return rates
