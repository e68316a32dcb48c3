"""Random numbers that follow from a few integers, and begin at once.

A draw has a stream of its own. To make one of numpy's generators takes as long as a draw, so one is
made, and put into the state that follows from the integers. A test holds the numbers that come out:
they are the upper 53 bits of PCG64's, which stay what they are in every release of numpy (NEP 19).
"""

from hashlib import blake2b

import numpy as np
import numpy.typing as npt


class RandomStream:
    """Numbers in [0, 1), uniform, 53 bits each; `seed` before the first."""

    def __init__(self) -> None:
        self._bits = np.random.PCG64(0)
        self._numbers = np.random.Generator(self._bits)

    def seed(self, *parts: int) -> None:
        """Begin the stream of these integers; other ones, or another order, are another stream."""
        digest = blake2b(repr(parts).encode(), digest_size=32).digest()
        self._bits.state = {
            "bit_generator": "PCG64",
            "state": {
                "state": int.from_bytes(digest[:16], "little"),
                "inc": int.from_bytes(digest[16:], "little") | 1,
            },
            "has_uint32": 0,
            "uinteger": 0,
        }

    def next(self, size: int) -> npt.NDArray[np.float64]:
        """The next numbers, shape (size,)."""
        return self._numbers.random(size)
