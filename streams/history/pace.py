"""How fast past batches are written again. Pure: who writes holds the clock."""

from typing import Final

from msgspec import Struct

from odradek.streams.errors import ReplayRefused

RECORDED: Final = "recorded"


class Pace(Struct, frozen=True):
    """When each batch is written: at once, so many in a second, or as far apart as they were."""

    per_second: float | None = None
    recorded: bool = False

    @property
    def is_full(self) -> bool:
        """Whether nothing is waited for."""
        return self.per_second is None and not self.recorded

    def due(self, number: int, written: float, first_written: float) -> float:
        """Seconds after the start at which a batch is due.

        Args:
            number: Counts the batches of the replay from 0.
            written: When the batch was written first, Unix seconds.
            first_written: When the first batch of the replay was.
        """
        if self.per_second is not None:
            return number / self.per_second
        return max(0.0, written - first_written) if self.recorded else 0.0

    @classmethod
    def parse(cls, text: str) -> "Pace":
        """A number of batches a second, or `recorded`. Raises ReplayRefused."""
        if text == RECORDED:
            return cls(recorded=True)
        try:
            rate = float(text)
        except ValueError:
            rate = 0.0
        if not 0 < rate < float("inf"):
            raise ReplayRefused(
                f"{text!r} is no pace: write batches per second, such as 5 or 0.5, or {RECORDED}"
            )
        return cls(per_second=rate)


FULL_SPEED: Final = Pace()
