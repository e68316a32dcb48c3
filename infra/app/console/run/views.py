"""What the pages of runs show. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from math import isfinite
from typing import Final

from msgspec import Struct

from odradek.infra.app.console.run.addresses import RunAddress
from odradek.infra.app.console.run.curves import RunCurves
from odradek.infra.app.console.run.plots import (
    PLOTS,
    PlotOptions,
    PlotView,
    columns_of,
    plot_view,
)
from odradek.infra.app.console.windows import TAG, WindowPosition, parts, size_of, window
from odradek.infra.app.history.sections import Cell, Grid, Lead, Section
from odradek.streams.errors import HistoryUnknown

POINTS_BYTES: Final = 50_000
"""Bytes of all lines of a page together."""
POINT: Final = 14
"""Bytes of a point of a line."""
MARKS_BYTES: Final = 40_000
"""Bytes of all points of a page that lead to steps."""
MARK: Final = 220
"""Bytes of such a point, without the name of its run."""
TABLE_BYTES: Final = 50_000
"""Bytes of a table."""
MARKS_OF_PLOT: Final = 24
"""Points of a small picture that lead to steps."""
LARGE: Final = (1000.0, 360.0)
"""Width and height of a picture that is shown alone."""


class RunPage(Struct, frozen=True, kw_only=True):
    """The page of one run, or of several laid over each other."""

    address: RunAddress
    others: tuple[str, ...]
    """Runs that are not shown."""
    plots: tuple[PlotView, ...]
    table: tuple[Section, ...] = ()
    """The numbers of a picture that is shown alone."""
    window: WindowPosition | None = None


def run_page(curves: Mapping[str, RunCurves], address: RunAddress) -> RunPage:
    """The page of runs. Raises HistoryUnknown for a run that the ledger does not have."""
    for name in address.names:
        if name not in curves:
            met = ", ".join(sorted(curves)[:20]) or "none"
            raise HistoryUnknown(f"the ledger has no run {name!r}; its runs: {met}")
    runs = [curves[name] for name in address.names]
    others = tuple(name for name in curves if name not in address.names)
    names = [address.plot] if address.plot else list(PLOTS)
    options = _options(address, pictures=len(names))
    plots = [view for name in names if (view := plot_view(name, runs, options)) is not None]
    if not address.plot:
        return RunPage(address=address, others=others, plots=tuple(plots))
    listed = list(parts(_table(runs, address)))
    link = TAG + 12 * max(map(len, address.names))
    at = window(listed, address.start, lambda n: size_of(listed[n], link), budget=TABLE_BYTES)
    return RunPage(
        address=address,
        others=others,
        plots=tuple(plots),
        table=tuple(listed[at.start : at.end]),
        window=at,
    )


def runs_table(curves: Mapping[str, RunCurves], most: int = 100) -> Iterator[Section]:
    """The runs of a ledger, the one with the newest step first."""
    made = sorted(curves.values(), key=lambda run: -(run.times[-1] if run.times else 0.0))
    headings = ("run", "steps", "last step", "reward", "success", "version")
    rows = tuple(_run_cells(run) for run in made[:most])
    if rows:
        more = f"runs: the newest {most} of {len(made)}" if len(made) > most else ""
        yield Grid(headings, rows, more)


def _run_cells(run: RunCurves) -> tuple[Cell, ...]:
    if not run.steps:
        return (Lead(run.run, "run", run.run), "0", *("",) * 4)
    last = len(run.steps) - 1
    metrics = (_number(run.value(name, last)) for name in ("reward_mean", "success", "version"))
    return (Lead(run.run, "run", run.run), str(len(run.steps)), _time(run.times[-1]), *metrics)


def _options(address: RunAddress, *, pictures: int) -> PlotOptions:
    large = pictures == 1
    href = MARK + 12 * max(map(len, address.names))
    lines = 2 if address.smooth > 1 else 1
    marks = min(MARKS_BYTES // href // pictures, 10 * MARKS_OF_PLOT if large else MARKS_OF_PLOT)
    return PlotOptions(
        by_time=address.across == "time",
        smooth=address.smooth,
        low=address.low,
        high=address.high or None,
        points=POINTS_BYTES // POINT // pictures // lines,
        marks=marks,
        **({"width": LARGE[0], "height": LARGE[1]} if large else {}),
    )


def _table(runs: Sequence[RunCurves], address: RunAddress) -> Iterator[Section]:
    """The numbers of a picture, the newest step first."""
    columns = columns_of(runs, address.plot)
    high = address.high or max((run.steps[-1] for run in runs if run.steps), default=0) + 1
    for run in runs:
        metrics = [metric for curves, metric in columns if curves is run]
        places = [n for n in range(len(run.steps)) if address.low <= run.steps[n] < high]
        rows: tuple[tuple[Cell, ...], ...] = tuple(
            (
                Lead(str(run.steps[n]), "step", f"{run.run}:{run.steps[n]}"),
                _time(run.times[n]),
                *(_number(run.value(metric, n)) for metric in metrics),
            )
            for n in reversed(places)
        )
        if rows:
            yield Grid(("step", "written", *metrics), rows, f"run {run.run}, the newest step first")


def _number(value: float) -> str:
    return f"{value:.6g}" if isfinite(value) else ""


def _time(written: float) -> str:
    return datetime.fromtimestamp(written, UTC).isoformat(" ", timespec="seconds")[:19]
