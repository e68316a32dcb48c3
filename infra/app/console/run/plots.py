"""Curves as the lines of a picture: what is drawn where. Pure."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import ceil, floor, isfinite, log10
from typing import Final, NamedTuple

from msgspec import Struct

from odradek.infra.app.console.run.curves import RunCurves, moving, thinned
from odradek.infra.app.console.windows import cut


class Plot(NamedTuple):
    """Which metrics a picture shows."""

    title: str
    metrics: tuple[str, ...]
    unit: str = ""


PLOTS: Final[dict[str, Plot]] = {
    "reward": Plot("mean reward", ("reward_mean",)),
    "success": Plot("success", ("success",)),
    "length": Plot("sampled tokens a row", ("length",), "tokens"),
    "entropy": Plot("entropy", ("entropy",), "nats"),
    "loss": Plot("loss", ("loss",)),
    "grad_norm": Plot("norm of the gradient", ("grad_norm",)),
    "clip": Plot("share of clipped tokens", ("clip_low", "clip_high", "tis_capped")),
    "ratio": Plot("mean ratio, trainer to engine", ("ratio_mean",)),
    "kl": Plot("KL, trainer to engine", ("kl",), "nats"),
    "mismatch": Plot("mismatch of engine and trainer, k3", ("mismatch_k3",), "nats"),
    "staleness": Plot("staleness", ("staleness_mean", "staleness_max"), "steps"),
    "seconds": Plot("waiting against training", ("wait_s", "train_s", "sync_s"), "s"),
    "samples": Plot("samples a second", ("samples_per_s",), "1/s"),
    "refused": Plot("rows and groups without use", ("rows_refused", "equal_groups")),
    "memory": Plot("memory", ("memory_mb", "peak_memory_mb"), "MB"),
}
"""By its name in an address."""
COLOURS: Final = 6
"""Classes l0 to l5; the seventh line has the first one's again."""
LABEL: Final = 24
"""Characters of a run's name beside a line."""
LEFT, RIGHT, TOP, BOTTOM = 46.0, 8.0, 8.0, 22.0
"""Around the lines, for the numbers of the axes."""


class PlotLine(Struct, frozen=True):
    """A line."""

    label: str
    kind: str
    """Its class."""
    path: str
    """`x,y x,y …`"""
    faint: str = ""
    """The same without smoothing, where the line is smoothed."""


class PlotMark(Struct, frozen=True):
    """A point that leads to its step."""

    x: float
    y: float
    kind: str
    run: str
    step: int
    hint: str


class PlotTick(Struct, frozen=True):
    """A number on an axis."""

    at: float
    text: str


class PlotView(Struct, frozen=True, kw_only=True):
    """A picture."""

    name: str
    title: str
    width: float
    height: float
    lines: tuple[PlotLine, ...]
    marks: tuple[PlotMark, ...]
    across: tuple[PlotTick, ...]
    up: tuple[PlotTick, ...]
    left: float = LEFT
    right: float
    top: float = TOP
    bottom: float
    latest: str = ""
    """The last value of the first line."""


class PlotOptions(Struct, frozen=True, kw_only=True):
    """How pictures are drawn."""

    by_time: bool = False
    smooth: int = 1
    low: int = 0
    high: int | None = None
    width: float = 360.0
    height: float = 170.0
    points: int = 200
    """Of all lines together, about."""
    marks: int = 24
    """Of all lines together, about."""


class _Drawn(NamedTuple):
    curves: RunCurves
    metric: str
    places: list[int]
    across: list[float]
    values: list[float]
    smooth: list[float]


def plot_view(name: str, runs: Sequence[RunCurves], options: PlotOptions) -> PlotView | None:
    """A picture of runs, laid over each other; None where none of them has its metrics."""
    plot = PLOTS[name]
    drawn = [
        one
        for curves in runs
        for metric in plot.metrics
        if (one := _drawn(curves, metric, options))
    ]
    if not drawn:
        return None
    inner_x = (LEFT, options.width - RIGHT)
    inner_y = (options.height - BOTTOM, TOP)
    x_range = _range(value for one in drawn for value in one.across)
    y_range = _range((value for one in drawn for value in one.values), pad=0.04)
    most = max(8, options.points // len(drawn))
    marks = options.marks // len(drawn)
    lines: list[PlotLine] = []
    points: list[PlotMark] = []
    for n, one in enumerate(drawn):
        kind = f"l{n % COLOURS}"
        xs = [_scaled(value, x_range, inner_x) for value in one.across]
        label = " ".join(
            part
            for part in (
                cut(one.curves.run, LABEL) if len(runs) > 1 else "",
                one.metric if len(plot.metrics) > 1 or len(runs) == 1 else "",
            )
            if part
        )
        path = _path(xs, one.smooth, y_range, inner_y, most)
        faint = _path(xs, one.values, y_range, inner_y, most) if options.smooth > 1 else ""
        lines.append(PlotLine(label, kind, path, faint))
        for place in _spread(thinned(one.values, marks * 2), marks):
            step = one.curves.steps[one.places[place]]
            y = _scaled(one.values[place], y_range, inner_y)
            hint = f"step {step}: {one.metric} {one.values[place]:.6g}"
            points.append(PlotMark(xs[place], y, kind, one.curves.run, step, hint))
    unit = f" ({plot.unit})" if plot.unit else ""
    return PlotView(
        name=name,
        title=f"{plot.title}{unit}",
        width=options.width,
        height=options.height,
        lines=tuple(lines),
        marks=tuple(points),
        across=tuple(_axis(x_range, inner_x, max(3, int(options.width / 90)))),
        up=tuple(_axis(y_range, inner_y, max(3, int(options.height / 45)))),
        right=inner_x[1],
        bottom=inner_y[0],
        latest=f"{drawn[0].values[-1]:.4g}",
    )


def _drawn(curves: RunCurves, metric: str, options: PlotOptions) -> _Drawn | None:
    places, values = curves.series(metric, low=options.low, high=options.high)
    if not places:
        return None
    begun = curves.times[0]
    across = [
        curves.times[n] - begun if options.by_time else float(curves.steps[n]) for n in places
    ]
    return _Drawn(curves, metric, places, across, values, moving(values, options.smooth))


def _range(values: Iterable[float], pad: float = 0.0) -> tuple[float, float]:
    """From the least to the greatest, wider by a share; never of no width."""
    listed = list(values)
    low, high = min(listed), max(listed)
    if high - low < 1e-9 * max(1.0, abs(low), abs(high)):
        width = max(abs(high) * 0.1, 0.5)
        return low - width, high + width
    return low - pad * (high - low), high + pad * (high - low)


def _scaled(value: float, source: tuple[float, float], target: tuple[float, float]) -> float:
    share = (value - source[0]) / (source[1] - source[0])
    return round(target[0] + share * (target[1] - target[0]), 1)


def _path(
    xs: Sequence[float],
    values: Sequence[float],
    y_range: tuple[float, float],
    inner: tuple[float, float],
    most: int,
) -> str:
    chosen = thinned(values, most)
    return " ".join(f"{xs[n]:g},{_scaled(values[n], y_range, inner):g}" for n in chosen)


def _spread(places: Sequence[int], most: int) -> list[int]:
    """So many of some places, evenly, the last among them."""
    if not most:
        return []
    if len(places) <= most:
        return list(places)
    every = ceil(len(places) / most)
    return [*places[:-1:every], places[-1]]


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` round numbers in [low, high]: multiples of 1, 2 or 5 times a power of ten."""
    if not (isfinite(low) and isfinite(high) and low < high):
        return []
    power = 10.0 ** floor(log10((high - low) / most))
    for factor in (1, 2, 5, 10, 20, 50):
        width = factor * power
        first, last = ceil(low / width), floor(high / width)
        if last - first + 1 <= most:
            return [n * width for n in range(first, last + 1)]
    return []


def _axis(
    source: tuple[float, float], target: tuple[float, float], most: int
) -> Iterable[PlotTick]:
    numbers = ticks(*source, most)
    apart = min((abs(b - a) for a, b in pairwise(numbers)), default=1.0)
    digits = max(0, -floor(log10(apart) + 1e-9)) if apart else 0
    for number in numbers:
        text = f"{number:.{digits}f}" if digits < 5 and abs(number) < 1e6 else f"{number:.3g}"
        yield PlotTick(_scaled(number, source, target), text)


def columns_of(runs: Sequence[RunCurves], name: str) -> list[tuple[RunCurves, str]]:
    """Run and metric of each line of a picture."""
    return [
        (curves, metric)
        for curves in runs
        for metric in PLOTS[name].metrics
        if metric in curves.names
    ]
