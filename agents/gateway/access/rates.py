"""How often a principal may ask: a moving window of the library `limits`."""

import math
import time
from typing import Any, Self

from odradek.infra.errors import ProjectError


class RequestRates:
    """Counts the requests of each principal at this gateway; each gateway counts its own.

    Args:
        limit: As `limits` has it.
        limiter: Counts.
    """

    def __init__(self, limit: Any, limiter: Any) -> None:
        self._limit = limit
        self._limiter = limiter

    @classmethod
    def of(cls, text: str) -> Self | None:
        """From a text such as `600/minute`; None for no text: no limit.

        Raises ProjectError for one that is no rate.
        """
        if not text:
            return None
        from limits import parse
        from limits.storage import MemoryStorage
        from limits.strategies import MovingWindowRateLimiter

        try:
            limit = parse(text)
        except ValueError:
            raise ProjectError(
                f"ODRADEK_GATEWAY_RATE: {text!r} is no rate: write 600/minute, or 20/second"
            ) from None
        return cls(limit, MovingWindowRateLimiter(MemoryStorage()))

    def wait_s(self, principal: str) -> int:
        """Count a request: 0 if it may go on, else after how many seconds one may again."""
        if self._limiter.hit(self._limit, principal):
            return 0
        reset = self._limiter.get_window_stats(self._limit, principal).reset_time
        return max(1, math.ceil(float(reset) - time.time()))
