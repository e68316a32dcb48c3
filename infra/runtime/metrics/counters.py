"""Counters that should stay at zero, and a warning when one increases.

OpenTelemetry counters, exported where the standard variables ask for it (`telemetry.setup`); with
none set, to count costs a few additions. The log line names the total and what to do about it, at
most once in ten seconds for each counter, so a flood of poison is no flood of lines. Attributes
are words from fixed sets (reasons, topics, stages): never ids, never content.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from opentelemetry import metrics

from odradek.infra.runtime.metrics.table import TRUST, Metric

log = logging.getLogger("odradek")

EVERY_S: Final = 10.0
"""Least time between two lines about one counter."""


class CounterTotals:
    """One counter's sums, and when its next line is due. No clock, no I/O."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.sums: Counter[tuple[str, ...]] = Counter()
        self._reported = 0
        self._next_line_at = 0.0

    def add(self, n: int, words: tuple[str, ...], now: float) -> float:
        """Count; return in how many seconds a line is due (0: now)."""
        self.sums[words] += n
        return max(0.0, self._next_line_at - now)

    def line(self, now: float) -> str:
        """The line that is due, or "" if nothing has moved since the last one."""
        total = self.sums.total()
        new, self._reported = total - self._reported, total
        if not new:
            return ""
        self._next_line_at = now + EVERY_S
        parts = ", ".join(
            f"{' '.join(words)} {n}".strip() for words, n in self.sums.most_common(5) if any(words)
        )
        whole = f"{new} more, {total} in all" + (f" ({parts})" if parts else "")
        return f"{self.metric.name}: {whole}: {self.metric.about}; {self.metric.advice}"


class CounterBoard:
    """All counters of a process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        meter = metrics.get_meter("odradek")
        self.tallies = {metric.name: CounterTotals(metric) for metric in TRUST}
        self._counters = {
            metric.name: meter.create_counter(metric.name, description=metric.about)
            for metric in TRUST
        }
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: set[str] = set()

    def moved(self, metric: Metric, n: int = 1, **attributes: str) -> None:
        """Count, and say so now or once the last line is ten seconds old."""
        if n < 1:
            return
        self._counters[metric.name].add(n, attributes)
        with self._lock:
            tally = self.tallies[metric.name]
            wait_s = tally.add(n, tuple(attributes.values()), self._clock())
            if metric.name in self._waiting:
                return
            if wait_s:
                self._waiting.add(metric.name)
                later = threading.Timer(wait_s, self.tell, (metric.name,))
                later.daemon = True
                later.start()
                return
        self.tell(metric.name)

    def tell(self, name: str) -> None:
        """Log a counter's line if it has moved since the last one."""
        with self._lock:
            self._waiting.discard(name)
            line = self.tallies[name].line(self._clock())
        if line:
            log.warning("%s", line)

    def total(self, metric: Metric) -> int:
        """A counter's value."""
        return self.tallies[metric.name].sums.total()


_board: Final = CounterBoard()
moved: Final = _board.moved
total: Final = _board.total


def flush() -> None:
    """Log every counter that has moved since its last line: at the end of a process."""
    for name in _board.tallies:
        _board.tell(name)
