"""What people hand us as numbers, and what is none: every place that takes one is held to it."""

from decimal import Decimal
from fractions import Fraction

import numpy as np


class Named:
    """Its repr is the same in each run, as names of tests must be."""

    def __repr__(self) -> str:
        return type(self).__name__


class Half(Named):
    """A number of somebody's own: it says its float and no more."""

    def __float__(self) -> float:
        return 0.5


class Whole(Named):
    """A number of somebody's own that is an index."""

    def __index__(self) -> int:
        return 1


class Text(str):
    """Text of somebody's own that reads as a number."""

    __slots__ = ()

    def __float__(self) -> float:
        return 0.5


NUMBERS = [
    (0.5, 0.5),
    (1, 1.0),
    (True, 1.0),
    (np.float16(0.5), 0.5),
    (np.float32(0.5), 0.5),
    (np.float64(0.5), 0.5),
    (np.longdouble(0.5), 0.5),
    (np.int64(-1), -1.0),
    (np.uint8(255), 255.0),
    (np.bool_(True), 1.0),
    (np.array(0.5), 0.5),
    (np.array([[0.5]], dtype=np.float32), 0.5),
    (np.array(0.5, dtype=object), 0.5),
    (Decimal("0.5"), 0.5),
    (Fraction(1, 2), 0.5),
    (Half(), 0.5),
    (Whole(), 1.0),
]
"""(what was given, the float that it is)."""

NO_NUMBERS = [
    None,
    "0.5",
    "",
    b"0.5",
    bytearray(b"1"),
    Text("1"),
    np.str_("0.5"),
    np.bytes_(b"0.5"),
    np.array("0.5"),
    np.array("0.5", dtype=object),
    1j,
    complex(1, 0),
    np.complex64(1),
    np.clongdouble(1),
    np.array(1 + 0j),
    np.array([]),
    np.array([0.5, 0.5]),
    np.timedelta64(1, "s"),
    [0.5],
    (0.5,),
    {"reward": 0.5},
    float,
    Named(),
]
NOT_FINITE = [
    float("nan"),
    float("inf"),
    -float("inf"),
    np.float32("nan"),
    np.array(np.inf),
    Decimal("NaN"),
    Decimal("-Infinity"),
    Decimal("sNaN"),
    Decimal("1e400"),
    10**400,
    -(10**400),
    Fraction(10**400),
    np.longdouble("1e400"),
]
