"""The metrics of a run's steps that count, as columns. Pure."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from math import isfinite, nan
from typing import Final

from odradek.infra.app.exports.line import RunLine
from odradek.schemas.events import Step

Derived = Callable[[Mapping[str, float], float], float]
"""A number made of a step's metrics, and of the seconds since the step before."""


def _length(metrics: Mapping[str, float], _seconds: float) -> float:
    return metrics["sampled_tokens"] / metrics["rows"]


def _samples_per_s(metrics: Mapping[str, float], seconds: float) -> float:
    return metrics["samples"] / seconds


DERIVED: Final[dict[str, Derived]] = {
    "length": _length,
    "samples_per_s": _samples_per_s,
}
"""Metrics that the console makes of others, by their names."""


class RunCurves:
    """The steps of one run. What a later start made again takes the place of the first.

    Args:
        run: Its name.
    """

    def __init__(self, run: str) -> None:
        self.run = run
        self.steps = array("q")
        """Numbers of the steps, rising."""
        self.times = array("d")
        """When the ledger got them, in Unix seconds."""
        self._columns: dict[str, array[float]] = {}
        self._line = RunLine(run)

    def feed(self, entry: Step, at: float) -> None:
        """Take the ledger's next entry, which it got at Unix time `at`."""
        change = self._line.feed(entry, at)
        if change.rewind is not None:
            self._keep(bisect_right(self.steps, change.rewind))
        if change.point is not None:
            self._add(change.point.step, at, change.point.metrics)

    def _keep(self, count: int) -> None:
        del self.steps[count:]
        for column in (self.times, *self._columns.values()):
            del column[count:]

    def _add(self, step: int, at: float, metrics: Mapping[str, float]) -> None:
        seconds = at - self.times[-1] if self.times else 0.0
        made = dict(metrics)
        for name, derived in DERIVED.items():
            try:
                made.setdefault(name, derived(metrics, seconds))
            except (KeyError, ZeroDivisionError):
                continue  # it lacks what the number is made of
        for name in made.keys() - self._columns.keys():
            self._columns[name] = array("d", [nan] * len(self.steps))
        self.steps.append(step)
        self.times.append(at)
        for name, column in self._columns.items():
            column.append(made.get(name, nan))

    @property
    def names(self) -> list[str]:
        """Of the metrics that any step has, in order."""
        return sorted(name for name, column in self._columns.items() if any(map(isfinite, column)))

    def value(self, name: str, n: int) -> float:
        """A metric of the n-th step; NaN where it was not measured."""
        return self._columns[name][n] if name in self._columns else nan

    def series(
        self, name: str, *, low: int = 0, high: int | None = None
    ) -> tuple[list[int], list[float]]:
        """Which steps [low, high) have a finite number of a metric, and the numbers."""
        begin = bisect_left(self.steps, low)
        end = len(self.steps) if high is None else bisect_left(self.steps, high)
        column = self._columns.get(name, ())
        chosen = [n for n in range(begin, end) if column and isfinite(column[n])]
        return chosen, [column[n] for n in chosen]


def moving(values: Sequence[float], window: int) -> list[float]:
    """The mean of the last `window` values at each place."""
    means, total = [], 0.0
    for at, value in enumerate(values):
        total += value - (values[at - window] if at >= window else 0.0)
        means.append(total / min(at + 1, window))
    return means


def thinned(values: Sequence[float], most: int) -> list[int]:
    """Places of at most about `most` values, with the least and the greatest of each stretch.

    The first and the last are among them, and so are the extremes of all.
    """
    n = len(values)
    if n <= max(most, 4):
        return list(range(n))
    stretches = max(1, (most - 2) // 2)
    kept = {0, n - 1}
    for stretch in range(stretches):
        places = range(stretch * n // stretches, (stretch + 1) * n // stretches)
        kept |= {min(places, key=values.__getitem__), max(places, key=values.__getitem__)}
    return sorted(kept)
