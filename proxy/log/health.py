"""Whether the log takes turns, and what to tell those who must wait for it."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from odradek.proxy.errors import LogRefused

SOONEST_S: Final = 1
LATEST_S: Final = 30
"""Bounds of Retry-After. With the wait before each refusal, a client that tries three times, as
OpenAI's do, gets over an outage of a minute."""

log = logging.getLogger("odradek.proxy")


class LogHealth:
    """The log's health, from its last answers.

    Args:
        clock: Monotonic seconds.
        wait_s: How long one who asks may be kept waiting before it is refused.
    """

    def __init__(self, clock: Callable[[], float], *, wait_s: float) -> None:
        self.failing_since: float | None = None
        """When the first of the appends began that all failed; None while the log takes turns."""
        self.answering_since: float | None = None
        """Since when the brokers answer although the log takes nothing from us."""
        self.wait_s = wait_s
        self._clock = clock
        self._taking = asyncio.Event()
        self._taking.set()

    def took(self) -> None:
        """The log has acknowledged something."""
        if self.failing_since is not None:
            log.info("the log takes turns again")
        self.failing_since = self.answering_since = None
        self._taking.set()

    def failed(self, error: object, began: float) -> None:
        """The log has not acknowledged the record that was sent at `began`."""
        if self.failing_since is None:
            self.failing_since = began
            log.warning("the log takes no turns: %s", error)
        self._taking.clear()

    def answers(self, *, yes: bool) -> None:
        """Whether brokers answered a question, while the log takes nothing."""
        if not yes:
            self.answering_since = None
        elif self.answering_since is None:
            self.answering_since = self._clock()

    def lost(self, patience_s: float) -> bool:
        """Whether brokers have answered for so long, and taken nothing from us."""
        since = self.answering_since
        return since is not None and self._clock() - since > patience_s

    async def taking(self) -> None:
        """Return once the log takes turns. Raises LogRefused if that takes longer than `wait_s`."""
        try:
            async with asyncio.timeout(self.wait_s):
                await self._taking.wait()
        except TimeoutError:
            raise self.refusal("the log takes no turns now, so no call is let in") from None

    def refusal(self, why: str) -> LogRefused:
        """An error that says when to try again: the longer the outage, the later."""
        since = self.failing_since
        failing = 0 if since is None else round(self._clock() - since)
        after_s = min(max(failing, SOONEST_S), LATEST_S)
        return LogRefused(f"{why}: try again", retry_after_s=after_s)
