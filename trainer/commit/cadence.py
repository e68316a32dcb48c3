"""How often a run saves: every so many steps, or once so much time has passed. Pure."""

import re
from typing import Final, Self

from msgspec import Struct

UNITS: Final = {"s": 1, "m": 60, "h": 3600}
_TEXT: Final = re.compile(r"([1-9]\d{0,8})([smh]?)")


class Cadence(Struct, frozen=True):
    """When the next checkpoint is due; one of the two is 0.

    Attributes:
        steps: Every so many steps.
        seconds: At the end of the first step that ends so long after the last one was begun.
    """

    steps: int = 0
    seconds: int = 0

    @classmethod
    def of(cls, text: str) -> Self:
        """Read `20` (steps), or `90s`, `10m`, `2h`. Raises ValueError."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError(
                f"{text!r} is neither a number of steps nor a time: write 20, or 90s, 10m, 2h"
            )
        number, unit = int(match[1]), match[2]
        return cls(seconds=number * UNITS[unit]) if unit else cls(steps=number)

    def due(self, step: int, passed_s: float) -> bool:
        """Whether a step that has ended is saved.

        Args:
            step: Its number.
            passed_s: Seconds since the last checkpoint was begun, or the start.
        """
        return passed_s >= self.seconds if self.seconds else step % self.steps == 0
