"""A tree of sums over non-negative numbers: set some of them, find where a running sum lies.

Two levels in plain numpy: leaves stand in rows with their running sums, and above them stand the
running sums of whole rows. A search is a binary search above and a comparison within one row; an
update adds up the rows that changed and then the rows' sums, which numpy does in microseconds for
a million leaves.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

FAN: Final = 32
"""Leaves of a row."""


class SumTree:
    """Sums over `size` leaves, all 0 at first.

    Every sum is a function of the leaves alone, never of the order of updates: two trees with equal
    leaves are equal to the byte.
    """

    def __init__(self, size: int) -> None:
        rows = -(-size // FAN)
        self._leaves = np.zeros((rows, FAN))
        self._running = np.zeros((rows, FAN))
        """Of each row, the running sums of its leaves."""
        self._above = np.zeros(rows)
        """Running sums of whole rows."""
        self.leaves: Numbers = self._leaves.reshape(-1)[:size]
        """To be read only, shape (size,)."""

    @property
    def total(self) -> float:
        """The sum of all leaves."""
        return float(self._above[-1])

    def set(self, places: Places, values: Numbers) -> None:
        """Set some leaves, shape (m,); a place may come twice only with the same value."""
        self.leaves[places] = values
        rows = places // FAN
        self._running[rows] = self._leaves[rows].cumsum(axis=1)
        self._running[:, -1].cumsum(out=self._above)

    def fill(self, values: Numbers) -> None:
        """Set every leaf, shape (size,)."""
        self.leaves[:] = values
        self._leaves.cumsum(axis=1, out=self._running)
        self._running[:, -1].cumsum(out=self._above)

    def find(self, sums: Numbers) -> Places:
        """The leaf of each running sum in [0, total): never one that is 0.

        Args:
            sums: Shape (m,). The total must be above 0.
        """
        # What is left within a row was rounded: below the row's own sum there is a leaf for it.
        rows = self._above.searchsorted(sums, side="right")
        rows = np.minimum(rows, self._above.searchsorted(self._above[-1]))
        running = self._running[rows]
        left = sums - np.where(rows > 0, self._above[rows - 1], 0.0)
        left = np.minimum(left, np.nextafter(running[:, -1], 0.0))
        places: Places = rows * FAN + (running > left[:, None]).argmax(axis=1)
        return places
