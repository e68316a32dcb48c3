"""Numbers that people hand us: from Python, numpy, torch or a library of their own."""

import math
import operator
from collections.abc import Callable
from decimal import Decimal
from numbers import Complex, Real
from typing import Any, Final, SupportsFloat, SupportsIndex

from odradek.schemas.errors import NoNumber, NotFinite

Number = SupportsFloat | SupportsIndex
"""What has a float in it."""

SPANS_OF_TIME: Final = frozenset("mM")
"""numpy's kinds for moments and for the time between them: in some units they look like whole
numbers."""


def number(value: object, name: str = "the value") -> float:
    """A person's number as a finite float: what has a float in it, and is no text.

    An array or a tensor counts if it holds a single real number, whatever its shape.

    Args:
        value: What was given.
        name: What it is, for the error, which never quotes the value.

    Raises:
        NoNumber: It is None, text, a complex number, several at once, or no number at all.
        NotFinite: It is not finite, or too large for a float.
    """
    plain = single(value)
    if not is_number(plain):
        raise NoNumber(_no_number(value, name))
    if isinstance(plain, Decimal) and plain.is_nan():  # of which a signalling one has no float
        raise NotFinite(f"{name} is not finite")
    converted, error = _answer_of(lambda: float(plain))
    if isinstance(error, OverflowError):
        raise NotFinite(f"{name} is too large for a float")
    if error is not None:
        why = f": its float raises {type(error).__name__}"
        raise NoNumber(_no_number(value, name) + why) from error
    if not math.isfinite(converted):
        raise NotFinite(f"{name} is not finite")
    return float(converted)


def single(value: object) -> Any:
    """What a scalar, array or tensor of another library holds as Python has it.

    Anything else is given back as it is, and so is what holds several elements or no data.
    """
    kind, item = _attribute(value, "dtype"), _attribute(value, "item")
    if kind is None or not callable(item) or _spans_time(value) or _is_masked(value):
        return value
    return _or(value, item)


def jsonable(value: object) -> Any:
    """What JSON has for a number of another library; msgspec asks this of types it cannot write.

    Raises:
        NoNumber: It is no number.
        NotFinite: It is not finite, or too large for a float.
    """
    plain = single(value)
    if type(plain) in {bool, int}:
        return plain
    if is_number(plain) and hasattr(type(plain), "__index__"):
        whole = _or(None, lambda: operator.index(plain))
        if whole is not None:
            return whole
    return number(plain, f"a {type(value).__name__}")


def is_number(value: object) -> bool:
    """Whether something may have a float in it: it says so of itself, and is no text."""
    kind = type(value)
    if hasattr(kind, "splitlines"):  # str, bytes, UserString, whatever else is text
        return False
    if isinstance(value, Complex) and not isinstance(value, Real):
        return False
    # What a conversion would leave of a complex array is its real part.
    if "complex" in _or("", lambda: str(_attribute(value, "dtype"))):
        return False
    if _spans_time(value) or _is_masked(value):
        return False
    return hasattr(kind, "__float__") or hasattr(kind, "__index__")


def _spans_time(value: object) -> bool:
    kind = _attribute(_attribute(value, "dtype"), "kind")
    return isinstance(kind, str) and kind in SPANS_OF_TIME


def _is_masked(value: object) -> bool:
    """Whether an array says of its single element that there is none."""
    mask = _attribute(value, "mask")  # of a table of other libraries it is a method
    if _attribute(mask, "dtype") is None:
        return False
    return _or(False, lambda: bool(mask)) is True


def _attribute(value: object, name: str) -> Any:
    return _or(None, lambda: getattr(value, name, None))


def _or(default: Any, ask: Callable[[], Any]) -> Any:
    """What a person's object answers, or the default where it raises."""
    answer, error = _answer_of(ask)
    return answer if error is None else default


def _answer_of(ask: Callable[[], Any]) -> tuple[Any, Exception | None]:
    """The answer of a person's object, or the error that it raises: that can be any."""
    try:
        return ask(), None
    except Exception as error:  # noqa: BLE001 - see above
        return None, error


def _no_number(value: object, name: str) -> str:
    shape = _attribute(value, "shape")
    of = f" of shape {tuple(shape)}" if isinstance(shape, tuple) and shape else ""
    return f"{name} is a {type(value).__name__}{of}, not a number"
