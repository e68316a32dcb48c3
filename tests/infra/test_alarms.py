"""Alarms: one table, rules of it for Prometheus, and thresholds from a run's own pace."""

import re

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from odradek.infra.app.backlog.lag import PartitionLag, ProcessLag
from odradek.infra.app.backlog.progress import ProgressWatch, UsualPace
from odradek.infra.app.cli import main
from odradek.infra.app.metrics.alarms import ALARMS, LEAST_S, Window, usual_step
from odradek.infra.app.metrics.rules import rules
from odradek.infra.runtime.metrics import METRICS

WINDOW = Window(step_s=20.0)
WORDS = {
    "and", "on", "sum", "by", "rate", "increase", "delta", "offset", "avg_over_time",
    "max_over_time", "error_type", "outcome", "equal", "metric", "result", "reason",
}  # fmt: skip


@pytest.mark.parametrize("alarm", ALARMS, ids=lambda alarm: alarm.name)
def test_a_rule_asks_only_for_metrics_that_there_are(alarm):
    """Each that it names is in its row, and each of its row is asked for."""
    text = re.sub(r'"[^"]*"|\[\w+\]|offset \w+', "", alarm.rule(WINDOW))
    named = set(re.findall(r"[a-z_]{2,}", text)) - WORDS
    known = {
        each.prometheus + end
        for each in METRICS
        for end in (("_sum", "_count") if each.kind == "histogram" else ("",))
    }
    assert set() == named - known
    assert all(any(name.startswith(each.prometheus) for name in named) for each in alarm.uses)


def test_every_alarm_says_what_to_do():
    """And no two have one name."""
    assert len(ALARMS) == len({alarm.name for alarm in ALARMS})
    assert all(alarm.about and alarm.advice for alarm in ALARMS)


def test_the_rule_file_has_a_rule_for_each_alarm():
    """As the verb prints it; `promtool check rules` takes it (docs/metrics.md)."""
    shown = CliRunner().invoke(main, ["alarms", "--prometheus", "--step", "20"]).output
    assert rules(WINDOW) == shown
    assert [alarm.name for alarm in ALARMS] == re.findall(r"- alert: (\w+)", shown)


@given(st.floats(0.001, 1e5), st.floats(1, 300))
def test_no_window_is_shorter_than_a_rate_or_an_alarm_needs(step_s, scrape_s):
    """However fast the run is: ten seconds, and four scrapes."""
    window = Window(step_s, scrape_s)
    short, long, past = (int(each[:-1]) for each in (window.short, window.long, window.past))
    assert max(LEAST_S, 4 * scrape_s, 3 * step_s) - 1 <= short <= long < past


def test_the_usual_step_is_the_median():
    """One long pause changes nothing; fewer than two steps say nothing."""
    assert (10.0, None, None) == (
        usual_step([0, 10, 20, 500, 510]),
        usual_step([1]),
        usual_step([]),
    )


def pace_of(*gaps):
    pace, now = UsualPace(), 0.0
    pace.finished(now)
    for gap in gaps:
        now += gap
        pace.finished(now)
    return pace, now


@given(st.lists(st.floats(0.001, 100), min_size=1, max_size=60))
def test_the_usual_interval_is_the_one_in_which_a_random_moment_falls(gaps):
    """Half of the time passes in intervals that are as long or longer."""
    usual = pace_of(*gaps)[0].usual()
    longer = sum(gap for gap in gaps if gap >= usual * (1 - 1e-6))
    assert longer >= sum(gaps) / 2 * (1 - 1e-6)


def test_bursts_have_the_interval_of_the_bursts():
    """Sixteen groups at once every minute: a minute is usual, not the moment between two groups."""
    assert 60.0 == pytest.approx(pace_of(*([0.01] * 15 + [60.0]) * 3)[0].usual())


@given(st.floats(0.1, 20), st.integers(5, 30))
def test_a_pace_slowed_fifty_times_is_fifty_times_as_patient(gap, n):
    """So a threshold of the usual interval fits a demo and a long run."""
    fast, slow = pace_of(*[gap] * n)[0].usual(), pace_of(*[50 * gap] * n)[0].usual()
    assert slow == pytest.approx(50 * fast, rel=1e-6)


def lag(done, waiting):
    part = PartitionLag(0, waiting, True, 0, done, done + waiting)
    return [ProcessLag("grouper", "rl.episodes.v1", "group", waiting, True, (part,))]


def test_a_process_stands_still_only_while_it_has_something_to_do():
    """It finishes one every second, rests for an hour, and hangs when there is work again."""
    watch = ProgressWatch()
    for now in range(10):
        (seen,) = watch.look(lag(now, 1), float(now))
    assert (0.0, 1.0) == (seen.idle_s, seen.usual_s)
    for now in (10, 1000, 3600):
        (seen,) = watch.look(lag(10, 0), float(now))
        assert 0.0 == seen.idle_s
    (seen,) = watch.look(lag(10, 2), 3602.0)
    (seen,) = watch.look(lag(10, 5), 3650.0)  # more comes, and nothing is finished
    assert (50.0, 1.0) == (seen.idle_s, seen.usual_s)
