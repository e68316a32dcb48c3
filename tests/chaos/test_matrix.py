"""A summary of many runs says no more than they prove."""

import json

import pytest

from tests.chaos import matrix


def line(*, ok=True, kills=10, commit="abc", seconds=(2.0, None)):
    """One run's line."""
    deaths = [
        {
            "process": "grouper",
            "recovery_s": value,
            "early": value is None,
            "unplaced": value is None,
        }
        for value in seconds
    ]
    deaths.append({"process": "trainer", "recovery_s": 12.0, "early": False, "unplaced": False})
    return {
        "ok": ok, "kills": kills, "commit": commit, "deaths": deaths, "episodes": 4, "lost": [],
        "duplicated": [], "wrong": [], "kills_in_transaction": 1, "counts": {}, "exclusions": {},
        "dead_letters": {}, "targets": ["group"], "seed": 1000, "asked_episodes": 4,
        "asked_kills": 10,
    }  # fmt: skip


def test_a_bound_is_given_only_where_nothing_failed():
    """3/n is the bound of no failures in n."""
    assert 0.15 == matrix.totals([line(), line()])["bound_95"]
    assert matrix.totals([line(), line(ok=False)])["bound_95"] is None


def test_kills_whose_recovery_is_not_measured_are_counted():
    """Those that struck before the victim said what it has are not dropped in silence."""
    told = matrix.totals([line(seconds=(2.0, 4.0, None))])
    assert {"nothing_left": 0, "unplaced": 1} == told["unmeasured"]
    assert 1 == told["early_kills"]
    assert {"p50": 2.0, "p99": 4.0, "n": 2} == told["recovery_s"]
    assert {"p50": 12.0, "p99": 12.0, "n": 1} == told["trainer_recovery_s"]


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """A folder with one run of the commit `abc`, which is checked out."""
    (tmp_path / matrix.LINES).write_text(json.dumps(line()) + "\n")
    monkeypatch.setattr(matrix, "commit", lambda: "abc")
    return tmp_path


def test_what_was_run_is_not_run_again(ran):
    """At the same commit."""
    cell = matrix.Cell(("group",), 1000, 4, 10)
    assert [] == list(matrix.fill(ran, [cell], pytest.fail))


def test_runs_of_two_commits_are_not_put_together(ran, monkeypatch):
    """One clear line says what to do."""
    monkeypatch.setattr(matrix, "commit", lambda: "def")
    with pytest.raises(matrix.OtherCommit, match=r"holds runs of abc, and this is def: give"):
        list(matrix.fill(ran, [matrix.Cell(("group",), 1000, 4, 10)], pytest.fail))
