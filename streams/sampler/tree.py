"""A tree of sums over non-negative numbers: set some of them, find where a running sum lies.

Two levels in plain numpy: leaves stand in rows with their running sums, and above them stand the
running sums of whole rows. A search is a binary search above and a comparison within one row; an
update adds up the rows that changed and then the rows' sums, which numpy does in microseconds for
a million leaves.
"""

from math import nextafter
from typing import Final

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

FAN: Final = 16
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
        self._sums = np.zeros(rows)
        self._tops = np.zeros(rows)
        """Of each row, the largest number below its sum."""
        self._above = np.zeros(rows + 1)
        """Running sums of whole rows, from 0 on."""
        self._ends = self._above[1:]
        self._top = 0.0
        """The largest number below the total."""
        self.leaves: Numbers = self._leaves.reshape(-1)[:size]
        """To be read only, shape (size,)."""
        self.total = 0.0
        """The sum of all leaves."""

    def set(self, places: Places, values: Numbers) -> None:
        """Set some leaves, shape (m,); a place may come twice only with the same value."""
        self.leaves[places] = values
        rows = places // FAN
        running = self._leaves.take(rows, axis=0).cumsum(axis=1)
        self._running[rows] = running
        sums = running[:, -1]
        self._sums[rows] = sums
        self._tops[rows] = np.nextafter(sums, 0.0)
        self._add_up()

    def fill(self, values: Numbers) -> None:
        """Set every leaf, shape (size,)."""
        self.leaves[:] = values
        self._leaves.cumsum(axis=1, out=self._running)
        self._sums[:] = self._running[:, -1]
        np.nextafter(self._sums, 0.0, out=self._tops)
        self._add_up()

    def _add_up(self) -> None:
        self._sums.cumsum(out=self._ends)
        self.total = float(self._ends[-1])
        self._top = nextafter(self.total, 0.0)

    def find(self, sums: Numbers) -> Places:
        """The leaf of each running sum in [0, total): never one that is 0.

        Args:
            sums: Shape (m,). The total must be above 0.
        """
        sums = np.minimum(sums, self._top)
        rows = self._ends.searchsorted(sums, side="right")
        # What is left within a row was rounded: below the row's own sum there is a leaf for it.
        left = np.minimum(sums - self._above.take(rows), self._tops.take(rows))
        places: Places = (self._running.take(rows, axis=0) > left[:, None]).argmax(axis=1)
        places += rows * FAN
        return places
