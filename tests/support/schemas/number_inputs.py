"""What people hand us as numbers, and what is none: every place that takes one is held to it."""

import re
from collections import UserString
from datetime import UTC, datetime, timedelta
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


class Raises(Named):
    """Has a float, says its type, and raises when it is asked for it."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __repr__(self) -> str:
        return f"Raises({type(self.error).__name__})"

    def __float__(self) -> float:
        raise self.error


class Index(Raises):
    """The same as an index."""

    __float__ = None  # type: ignore[assignment] # it has none

    def __index__(self) -> int:
        raise self.error


class Shy(Named):
    """An array of some library whose attributes raise."""

    def __float__(self) -> float:
        return 0.5

    @property
    def dtype(self) -> object:
        raise RuntimeError("no device")

    shape = mask = item = dtype


class Stuck(Named):
    """A scalar of some library that lies where nobody can reach it."""

    dtype = "float32"

    def __float__(self) -> float:
        raise OSError("device lost")

    def item(self) -> float:
        raise OSError("device lost")


class Lies(Named):
    """What it calls its float is none."""

    def __float__(self) -> float:
        return "0.5"  # type: ignore[return-value] # it lies


class Words(UserString):
    """Text of somebody's own that is no str."""


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
    (Shy(), 0.5),
    (np.ma.array([0.5]), 0.5),
    (np.ma.array([0.5], mask=[False]), 0.5),
    (np.ma.array(0.5), 0.5),
]
"""(what was given, the float that it is)."""

ERRORS = [
    ZeroDivisionError("1/0"),
    ArithmeticError(),
    KeyError("score"),
    AttributeError(),
    AssertionError(),
    OSError(5, "lost"),
    MemoryError(),
    RecursionError(),
    StopIteration(),
    NotImplementedError(),
    UnicodeDecodeError("utf-8", b"x", 0, 1, "no"),
    TypeError(),
    ValueError(),
    RuntimeError(),
    Exception(),
]
"""What somebody's `__float__` may raise."""

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
    UserString("0.5"),
    UserString(""),
    Words("1"),
    np.array(UserString("0.5"), dtype=object),
    np.array(b"1", dtype=object),
    np.array(1j, dtype=object),
    np.array([[0.5]], dtype=object)[0:0],
    np.ma.masked,
    np.ma.array([0.5], mask=[True]),
    np.ma.array(0.5, mask=True),
    np.ma.array([0.5, 0.5], mask=[True, False]),
    np.datetime64("2020-01-01", "D"),
    np.datetime64("NaT"),
    np.array([1], dtype="M8[ns]"),
    np.array(np.timedelta64(1, "ns"), dtype=object),
    np.void(b"1"),
    np.zeros((), dtype=[("a", "f8")]),
    *(Raises(error) for error in ERRORS),
    *(Index(error) for error in ERRORS),
    Stuck(),
    Lies(),
    (0.5 for _ in ()),
    memoryview(b"1"),
    range(1),
    NotImplemented,
    ...,
    timedelta(seconds=1),
    datetime(2020, 1, 1, tzinfo=UTC),
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
    Raises(OverflowError()),
]


def shown(given) -> str:
    """The name of a test with it: no address is in it, since that is another one in each process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(given))[:40]
