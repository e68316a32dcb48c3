"""Ranges of numbers as people write them: FROM:TO of counts, LOW:HIGH of rewards. Pure."""

import math

from msgspec import Struct

from odradek.streams.errors import ReplayRefused


class CountSpan(Struct, frozen=True):
    """Counts [first, last): offsets, steps or versions."""

    first: int | None = None
    """None: from the oldest on."""
    last: int | None = None
    """The first that is left out; None: there is no end."""

    def __contains__(self, number: int) -> bool:
        """Whether a count lies in it."""
        return number >= (self.first or 0) and (self.last is None or number < self.last)

    def __str__(self) -> str:
        """As `parse` reads it."""
        return ":".join("" if end is None else str(end) for end in (self.first, self.last))

    @classmethod
    def parse(cls, text: str, what: str = "offsets", *, alone: bool = False) -> "CountSpan":
        """FROM:TO, where TO is the first that is left out; either may be empty.

        Args:
            text: What a person wrote.
            what: What is counted, for the error.
            alone: Whether a single number is a span of one.

        Raises ReplayRefused where it is no span.
        """
        if alone and text.isascii() and text.isdigit():
            return cls(int(text), int(text) + 1)
        begin, colon, end = text.partition(":")
        try:
            first, last = int(begin) if begin else None, int(end) if end else None
        except ValueError:
            first, last = -1, None
        if not colon or (first or 0) < 0 or (last is not None and last <= (first or 0)):
            single = "12, " if alone else ""
            raise ReplayRefused(
                f"{text!r} is no span of {what}: write FROM:TO, such as {single}0:40 or 12:"
            )
        return cls(first, last)


class RewardSpan(Struct, frozen=True):
    """Rewards [low, high], of the sample or of one component."""

    low: float = -math.inf
    high: float = math.inf
    component: str = ""
    """Empty: the reward that the batch states."""

    def takes(self, reward: float | None) -> bool:
        """Whether a reward lies in it; none does not."""
        return reward is not None and self.low <= reward <= self.high

    @classmethod
    def parse(cls, text: str) -> "RewardSpan":
        """[COMPONENT=]LOW:HIGH, both included; either may be empty. A number alone is both.

        Raises ReplayRefused.
        """
        component, equals, span = text.rpartition("=")
        low, colon, high = span.partition(":")
        if not colon:
            high = low
        try:
            least, most = float(low or "-inf"), float(high or "inf")
        except ValueError:
            least, most = math.inf, -math.inf
        if not span or not least <= most or (equals and not component):
            raise ReplayRefused(
                f"{text!r} is no span of rewards: write LOW:HIGH, such as 0.5: or 0:0, or "
                "COMPONENT=LOW:HIGH"
            )
        return cls(least, most, component)
