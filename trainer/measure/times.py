"""Seconds of a step by part: no part counts what a part inside it took."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Final

PARTS: Final = ("wait", "plan", "forward")
"""Parts of a step: waiting for rows; dealing them out to micro-batches and packing those; forward
and backward passes."""


class StepTimes:
    """Adds up how long the parts of a step take.

    Args:
        clock: Seconds, from any beginning; it never goes back.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._seconds: dict[str, float] = defaultdict(float)
        self._stack: list[str] = []
        self._since = 0.0

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time until the end of the block for a part, but for parts inside it."""
        self._lap()
        self._stack.append(name)
        try:
            yield
        finally:
            self._lap()
            self._stack.pop()

    def _lap(self) -> None:
        now = self._clock()
        if self._stack:
            self._seconds[self._stack[-1]] += now - self._since
        self._since = now

    def finish(self) -> dict[str, float]:
        """`wait_s`, `plan_s`, … of the parts that there were; everything is cleared."""
        metrics = {f"{name}_s": seconds for name, seconds in self._seconds.items()}
        self._seconds.clear()
        return metrics
