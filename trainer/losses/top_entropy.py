"""Which tokens of a step have the most entropy. Pure numpy."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def floor_of(
    entropies: Sequence[npt.NDArray[Any]], weights: Sequence[float], share: float
) -> tuple[float, float]:
    """The entropy from which on a token is chosen, and how many are, as they weigh.

    The tokens at or above the (1 - share) quantile of all of the step's: arXiv 2506.01939,
    section 5.1. Its equation 6 divides by how many are chosen; the losses divide by all tokens, as
    TRL does with `top_entropy_quantile`. The floor lies between the lowest that is chosen and the
    highest that is not, so another rounding of the same entropies chooses the same tokens.

    Args:
        entropies: Of each row's sampled tokens, in nats, shape (m_i,) for each row.
        weights: Of each row.
        share: Of the tokens, in (0, 1].
    """
    every = np.concatenate(entropies).astype(np.float64)
    chosen = every >= np.quantile(every, 1 - share)
    floor = -np.inf
    if not chosen.all():
        floor = (every[chosen].min() + every[~chosen].max()) / 2
    ends = np.cumsum([len(values) for values in entropies])[:-1]
    counts = [float(part.sum()) for part in np.split(chosen, ends)]
    return float(floor), sum(w * n for w, n in zip(weights, counts, strict=True))
