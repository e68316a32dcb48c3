"""Rewards that take a reply's length into account, before samples are compared. Pure numpy."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LengthShaping:
    """What length costs; a sample's length is the number of tokens that were sampled for it.

    Attributes:
        overlong_tokens: L, from which on a sample loses 1; 0 for none.
        overlong_buffer: B, so many tokens before it begins to lose.
        length_penalty: Weight of the length among the samples of a group; 0 for none.
        success: The reward from which on a sample counts as a success.
    """

    overlong_tokens: int = 0
    overlong_buffer: int = 0
    length_penalty: float = 0.0
    success: float = 1.0

    @property
    def active(self) -> bool:
        """Whether length costs anything."""
        return self.overlong_tokens > 0 or self.length_penalty > 0

    def shaped(self, rewards: Numbers, lengths: npt.NDArray[np.int64]) -> Numbers:
        """Rewards of a group with what its lengths cost.

        Args:
            rewards: Of the samples, shape (n,).
            lengths: Of each; -1 where it could not be read, which costs nothing.
        """
        known = lengths >= 0
        made = rewards.astype(np.float64)
        if self.overlong_tokens:
            made = made + np.where(known, self._overlong(lengths), 0.0)
        if self.length_penalty and known.any():
            made = made + self.length_penalty * np.where(known, self._relative(rewards, lengths), 0)
        return made

    def _overlong(self, lengths: npt.NDArray[np.int64]) -> Numbers:
        """0 up to L - B, down to -1 at L, and -1 beyond. DAPO, arXiv 2503.14476, equation 13."""
        begin = self.overlong_tokens - self.overlong_buffer
        if not self.overlong_buffer:
            return np.where(lengths > self.overlong_tokens, -1.0, 0.0)
        return np.clip((begin - lengths) / self.overlong_buffer, -1.0, 0.0)

    def _relative(self, rewards: Numbers, lengths: npt.NDArray[np.int64]) -> Numbers:
        """0.5 - (l - min) / (max - min) for a success, at most 0 for any other; 0 if all are equal.

        Kimi k1.5, arXiv 2501.12599, section 2.3.3.
        """
        read = lengths[lengths >= 0]
        least, most = int(read.min()), int(read.max())
        if least == most:
            return np.zeros(len(lengths))
        place = 0.5 - (lengths - least) / (most - least)
        return np.where(rewards >= self.success, place, np.minimum(place, 0.0))


NO_SHAPING: Final = LengthShaping()
"""What the judges gave is what counts."""
