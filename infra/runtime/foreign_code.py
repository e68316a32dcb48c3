"""Errors of users' code: kept, SystemExit included, and reported without their text.

A reward function, a person's module as it is imported, the `__str__` of an exception of theirs:
each may raise anything. It must neither end a process of ours nor become a number. And the text of
an error may quote what an agent said or hold a token, so logs, dead letters and spans name its type
and its place alone.
"""

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

LONGEST: Final = 500
"""Characters of what is reported of an error."""
LONGEST_NAME: Final = 200
"""Characters of the name of its type."""


class ForeignCode:
    """A block that calls users' code: an exception ends the block and is kept in `error`.

    A broad except by another name, so tests/house/test_broad_excepts.py counts its uses.

    Args:
        but: Errors that are ours even there, such as CancelledError: they are raised.
    """

    def __init__(self, *but: type[BaseException]) -> None:
        self.error: BaseException | None = None
        self._but = but

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if error is None or isinstance(error, self._but):
            return False
        self.error = error
        return True


def error_site(error: BaseException) -> str:
    """Type and innermost place of an error in one line, such as `KeyError at rewards.py:3`."""
    return one_line(f"{type_of(error)}{place_of(error)}")


def type_of(error: BaseException) -> str:
    """The name of an error's type, whatever it answers when it is asked."""
    return str(answer_of(lambda: type(error).__name__) or "an error")[:LONGEST_NAME]


def place_of(error: BaseException) -> str:
    """` at FILE:LINE` where an error was raised, or nothing if it has no traceback."""
    trace = answer_of(lambda: error.__traceback__)
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    return f" at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"


def answer_of(ask: Callable[[], Any]) -> Any:
    """Call a method of a user's error; None if it raises, too."""
    with ForeignCode():
        return ask()
    return None


def one_line(text: str) -> str:
    """A text that a terminal, a header and JSON can hold: half characters and controls escaped."""
    return printable(" ".join(text[: 4 * LONGEST].split()))[:LONGEST]


def printable(text: str, kept: str = "") -> str:
    """Text that moves no cursor and has no colour: signs that do not print stand escaped.

    Args:
        text: Anybody's.
        kept: Signs that stay as they are, such as line ends.
    """
    return "".join(
        sign if sign.isprintable() or sign in kept else ascii(sign)[1:-1] for sign in text
    )
