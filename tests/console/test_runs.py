"""Pages of runs: curves of the steps that count, and pictures of them."""

from math import isfinite, isnan
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odradek.infra.app.console.page import run_html
from odradek.infra.app.console.run.addresses import ACROSS, RunAddress, parse_run
from odradek.infra.app.console.run.curves import RunCurves, moving, thinned
from odradek.infra.app.console.run.ledger import LedgerCurves
from odradek.infra.app.console.run.plots import PLOTS, PlotOptions, plot_view, ticks
from odradek.infra.app.console.run.views import run_page
from odradek.infra.app.console.windows import MOST
from odradek.infra.app.exports.line import RunLine
from odradek.infra.errors import PageRefused
from odradek.schemas.events import Step
from odradek.streams.errors import HistoryUnknown
from tests.support.streams.hostile_log import HOSTILE

numbers = st.floats(-1e6, 1e6)
METRICS = ("loss", "reward_mean", "samples")
entries = st.lists(
    st.tuples(
        st.integers(1, 3), st.integers(0, 9), st.booleans(),
        st.dictionaries(st.sampled_from(METRICS), numbers, max_size=3),
    ),
    max_size=30,
)  # fmt: skip


def run_of(steps, name="main", **metrics):
    """A run of so many steps, a second apart, with these metrics by functions of the step."""
    curves = RunCurves(name)
    for step in range(1, steps + 1):
        made = {metric: float(value(step)) for metric, value in metrics.items()}
        curves.feed(
            Step(run=name, incarnation=1, step=step, position=step, metrics=made), float(step)
        )
    return curves


@settings(max_examples=30)
@given(listed=entries)
def test_curves_hold_the_steps_that_count(listed):
    """Those of `odradek export`: a later start takes back what it makes again."""
    curves, line, kept = RunCurves("main"), RunLine("main"), []
    for at, (start, step, optimized, metrics) in enumerate(listed):
        entry = Step(
            run="main",
            incarnation=start,
            step=step,
            position=0,
            optimized=optimized,
            metrics=metrics,
        )
        curves.feed(entry, float(at))
        change = line.feed(entry, float(at))
        if change.rewind is not None:
            kept = [point for point in kept if point.step <= change.rewind]
        if change.point is not None:
            kept.append(change.point)
    assert [point.step for point in kept] == list(curves.steps)
    assert [point.at for point in kept] == list(curves.times)
    for name in METRICS:
        for n, point in enumerate(kept):
            value = curves.value(name, n)
            assert point.metrics.get(name) == value or (name not in point.metrics and isnan(value))


@settings(max_examples=40)
@given(values=st.lists(numbers, min_size=1, max_size=300), most=st.integers(2, 60))
def test_thinned_values_keep_their_ends_and_extremes(values, most):
    """In order, and not more than that."""
    places = thinned(values, most)
    assert sorted(set(places)) == places
    assert len(places) <= max(most, 4)
    kept = [values[n] for n in places]
    assert (min(values), max(values)) == (min(kept), max(kept))
    assert {0, len(values) - 1} <= {*places}


@settings(max_examples=30)
@given(values=st.lists(numbers, min_size=1, max_size=60), window=st.integers(1, 20))
def test_a_moving_mean_is_the_mean_of_the_last_values(values, window):
    """Fewer at the beginning."""
    for n, mean in enumerate(moving(values, window)):
        last = values[max(0, n + 1 - window) : n + 1]
        assert sum(last) / len(last) == pytest.approx(mean, abs=1e-3)


@settings(max_examples=60)
@given(low=numbers, width=st.floats(1e-3, 1e6), most=st.integers(3, 9))
def test_ticks_are_few_round_numbers_within(low, width, most):
    """At least one where there is room for three."""
    found = ticks(low, low + width, most)
    assert 1 <= len(found) <= most
    assert all(low - 1e-6 * width <= tick <= low + width * (1 + 1e-6) for tick in found)


@settings(max_examples=40)
@given(
    values=st.lists(numbers | st.just(float("nan")), min_size=1, max_size=80),
    by_time=st.booleans(),
    smooth=st.integers(1, 9),
)
def test_a_picture_lies_within_its_frame(values, by_time, smooth):
    """Its lines, its points and its numbers, whatever the values."""
    curves = RunCurves("main")
    for n, value in enumerate(values):
        metrics = {"loss": value} if isfinite(value) else {}
        curves.feed(Step(run="main", incarnation=1, step=n + 1, position=0, metrics=metrics), n / 7)
    view = plot_view("loss", [curves], PlotOptions(by_time=by_time, smooth=smooth))
    if not any(map(isfinite, values)):
        assert view is None
        return
    paths = " ".join(f"{line.path} {line.faint}" for line in view.lines).split()
    points = [tuple(map(float, pair.split(","))) for pair in paths]
    points += [(mark.x, mark.y) for mark in view.marks]
    assert all(view.left <= x <= view.right and view.top <= y <= view.bottom for x, y in points)
    assert {mark.step for mark in view.marks} <= {*curves.steps}


def test_a_point_leads_to_its_step_and_a_table_has_all_numbers():
    """Also of runs that are laid over each other."""
    curves = {
        name: run_of(12, name, loss=lambda step: step / 10) for name in ("main", "again", "third")
    }
    page = run_page(curves, RunAddress(names=("main", "again"), plot="loss"))
    html = run_html(page)
    assert "/step?name=40&amp;run=" not in html
    for name in ("main", "again"):
        assert f'href="/step?name={name}%3A12"' in html
    assert html.count("<tr") == 2 + 2 * 12
    assert "name=third" in html


def test_smoothing_zoom_and_time_change_what_is_drawn():
    """And not what is there."""
    curves = {"main": run_of(100, loss=lambda step: step % 7)}
    plain = run_page(curves, RunAddress(names=("main",), plot="loss")).plots[0]
    smooth = run_page(curves, RunAddress(names=("main",), plot="loss", smooth=16)).plots[0]
    zoomed = run_page(curves, RunAddress(names=("main",), plot="loss", low=10, high=20))
    assert plain.lines[0].path == smooth.lines[0].faint != smooth.lines[0].path
    assert {*range(10, 20)} == {mark.step for mark in zoomed.plots[0].marks}
    assert 10 == len(zoomed.table[0].rows)


def test_a_page_of_long_runs_is_no_longer_than_an_answer_may_be():
    """Six runs with all metrics, and with names that are as long as can be together."""
    names = {metric for plot in PLOTS.values() for metric in plot.metrics} | {
        "rows",
        "sampled_tokens",
        "samples",
    }
    every = {name: (lambda step: step * 1.2345678 % 97) for name in sorted(names)}
    for name in ("r", "é" * 256, "<&\"'" * 64):
        runs = [f"{name[:41]}{n}" for n in range(6)] if len(name) > 1 else [name]
        curves = {run: run_of(250, run, **every) for run in (*runs, "other")}
        for plot in ("", "clip"):
            address = RunAddress(names=tuple(runs), plot=plot, smooth=16)
            assert len(run_html(run_page(curves, address)).encode()) <= MOST, (name[:4], plot)


def test_the_ledger_is_read_on_from_where_it_ended(views):
    """The curves of a recorded run, whole at once or in two parts."""
    import asyncio

    whole, parted = LedgerCurves(), LedgerCurves()
    asyncio.run(whole.update(views.lookup))
    records = asyncio.run(_all(views.lookup))
    for record in records[: len(records) // 2]:
        parted.feed(record)
    asyncio.run(parted.update(views.lookup))
    assert ["main"] == [*whole.curves] == [*parted.curves]
    assert whole.curves["main"].steps == parted.curves["main"].steps
    assert len(whole.curves["main"].steps) > 5


async def _all(lookup):
    return [record async for record in lookup.whole("rl.steps.v1")]


@settings(max_examples=40)
@given(
    address=st.builds(
        RunAddress,
        names=st.lists(
            st.sampled_from(("main", *HOSTILE)), min_size=1, max_size=6, unique=True
        ).map(tuple),
        plot=st.sampled_from(("", *PLOTS)),
        across=st.sampled_from(ACROSS),
        smooth=st.integers(1, 10_000),
        low=st.integers(0, 99),
        high=st.just(0) | st.integers(100, 10**9),
        start=st.integers(0, 10**9),
    )
)
def test_an_address_of_runs_is_read_as_it_was_written(address):
    """Whatever is in a name."""
    parts = urlsplit(address.href)
    assert address.href.isascii()
    assert address == parse_run(parse_qsl(parts.query))


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ([], "say which run"),
        ([("name", str(n)) for n in range(9)], "at most 6 runs"),
        ([("name", "r" * 257)], "at most 256 characters together"),
        ([("name", "a"), ("plot", "joy")], "there are reward"),
        ([("name", "a"), ("by", "moon")], "by step or time"),
        ([("name", "a"), ("low", "9"), ("high", "9")], "leave no step"),
        ([("name", "a"), ("low", "-1")], "no number from 0"),
    ],
)
def test_an_address_of_no_run_says_what_it_may_be(query, says):
    """In one line."""
    with pytest.raises(PageRefused, match=says):
        parse_run(query)


def test_a_run_that_nobody_has_is_named_with_those_there_are():
    """So the next address can be right."""
    with pytest.raises(HistoryUnknown, match="no run 'no'; its runs: main"):
        run_page({"main": run_of(1)}, RunAddress(names=("no",)))
