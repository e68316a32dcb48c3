"""Golden signals: what is counted and measured as often as work is done, at next to no cost.

To count is to add to a dictionary. OpenTelemetry asks for sums and gauges when it exports, in a
thread of its own, so nothing of it stands in the way of the work. A histogram's values go to
OpenTelemetry one by one; while nothing is exported they go nowhere.

All is of one process. Counts come from one thread each (an event loop, or the trainer's).
"""

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from odradek.infra.runtime.metrics.table import CPU_S, MEMORY, SIGNALS, UPTIME, Metric

Values = tuple[str, ...]
"""Of a metric's attributes, in their order; "" leaves one out."""
Gauge = Callable[[], Iterable[tuple[float, Values]]]
"""Says a gauge's values now, each with those of its attributes. Called in another thread."""

PAGE: Final = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
_BEGAN: Final = time.monotonic()
_sums: Final[dict[str, defaultdict[Values, float]]] = {
    metric.name: defaultdict(float) for metric in SIGNALS if metric.kind == "counter"
}
_gauges: Final[dict[str, Gauge]] = {}
_histograms: Final[dict[str, Any]] = {}


def count(metric: Metric, n: float, *values: str) -> None:
    """Add to a counter.

    Args:
        metric: Of the table.
        n: How many.
        values: Of its attributes, in their order.
    """
    _sums[metric.name][values] += n


def record(metric: Metric, value: float, *values: str) -> None:
    """Put a value into a histogram; see `count`."""
    histogram = _histograms.get(metric.name)
    if histogram is not None:
        histogram.record(value, _named(metric, values))


def gauge(metric: Metric, read: Gauge) -> None:
    """Say who knows a gauge's values: of this process the last one that says so."""
    _gauges[metric.name] = read


def total(metric: Metric, *values: str) -> float:
    """A counter's value, of these values of its attributes, or of all together."""
    sums = _sums[metric.name]
    return sums[values] if values else sum(sums.values())


def export() -> None:
    """Make the instruments, once a meter provider is set."""
    _gauges[MEMORY.name] = _memory
    _gauges[UPTIME.name] = lambda: [(time.monotonic() - _BEGAN, ())]
    meter = metrics.get_meter("odradek")
    for metric in SIGNALS:
        if metric.kind == "histogram":
            _histograms[metric.name] = meter.create_histogram(
                metric.name,
                unit=metric.unit,
                description=metric.about,
                explicit_bucket_boundaries_advisory=metric.bounds,
            )
        elif metric.kind == "counter":
            meter.create_observable_counter(
                metric.name, [_summed(metric)], unit=metric.unit, description=metric.about
            )
        else:
            meter.create_observable_gauge(
                metric.name, [_gauged(metric)], unit=metric.unit, description=metric.about
            )


def _summed(metric: Metric) -> Callable[[CallbackOptions], Iterator[Observation]]:
    def observe(_: CallbackOptions) -> Iterator[Observation]:
        if metric is CPU_S:
            _cpu()
        # A copy: the process counts on in another thread.
        for values, n in dict(_sums[metric.name]).items():
            yield Observation(n, _named(metric, values))

    return observe


def _gauged(metric: Metric) -> Callable[[CallbackOptions], Iterator[Observation]]:
    def observe(_: CallbackOptions) -> Iterator[Observation]:
        read = _gauges.get(metric.name)
        try:
            seen = list(read()) if read is not None else []
        except RuntimeError:
            return  # what it looks at was changed meanwhile, in another thread: the next time
        for value, values in seen:
            yield Observation(value, _named(metric, values))

    return observe


def _named(metric: Metric, values: Values) -> dict[str, str]:
    return {name: value for name, value in zip(metric.attributes, values, strict=True) if value}


def _cpu() -> None:
    times = os.times()
    _sums[CPU_S.name] |= {("user",): times.user, ("system",): times.system}


def _memory() -> list[tuple[float, Values]]:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return []
    return [(pages * PAGE, ())]
