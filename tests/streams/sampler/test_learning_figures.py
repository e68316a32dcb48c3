"""Figures of replay in learning say no more than their runs do, and a file of results loses none."""

import math

import pytest

from tests.learning.replay.arms import ARMS
from tests.learning.replay.figures import compared, lines, median_of
from tests.support.suite.results import append, read


def run(arm, seed, fresh, game="small"):
    """A run's result; None where it gave up."""
    return {
        "game": game, "arm": arm, "seed": seed, "fresh": fresh and fresh - 10, "fresh_sure": fresh,
        "reached": fresh is not None, "steps": 50,
    }  # fmt: skip


def test_a_result_that_a_kill_cut_off_is_done_again(tmp_path):
    """What was appended stays; the rest of a line is none, and does not spoil the next one."""
    path = tmp_path / "folder" / "results.jsonl"
    assert [] == read(path)
    append(path, {"seed": 1})
    with path.open("ab") as file:
        file.write(b'{"seed": 2, "fre')
    assert [{"seed": 1}] == read(path)
    append(path, {"seed": 2})
    append(path, {"seed": 3})
    assert [{"seed": 1}, {"seed": 2}, {"seed": 3}] == read(path)


def test_ratios_are_of_runs_of_one_seed():
    """A seed that only one arm has is in its median, and in no ratio."""
    results = [
        run("on-policy", 0, 1000), run("on-policy", 1, 2000), run("on-policy", 2, 900),
        run("fifo", 0, 500), run("fifo", 1, 1200), run("fifo", 7, 50),
    ]  # fmt: skip
    arms = compared(results)["small"]["arms"]
    assert (990, 490) == (arms["on-policy"]["first_touch"][0], arms["fifo"]["first_touch"][0])
    assert (1000, 500) == (arms["on-policy"]["fresh"][0], arms["fifo"]["fresh"][0])
    assert (0.55, 1.0) == (arms["fifo"]["ratio"][0], arms["on-policy"]["ratio"][0])
    assert ["on-policy", "fifo"] == list(arms)


def test_runs_that_gave_up_count_as_needing_more_than_any_other():
    """They are never left out of a median; where most gave up, it has no number."""
    some = [run("fifo", seed, fresh) for seed, fresh in enumerate((500, 600, None))]
    most = [run("decay", seed, fresh) for seed, fresh in enumerate((500, None, None))]
    arms = compared(some + most)["small"]["arms"]
    assert (600, None) == (arms["fifo"]["fresh"][0], arms["decay"]["fresh"][0])
    assert (3, 2) == (arms["fifo"]["seeds"], arms["fifo"]["reached"])
    assert any("more" in line for line in lines(compared(most)))


@pytest.mark.parametrize("values", [[5.0], [1.0, 2.0, 3.0, 4.0, 100.0], [1.0, 2.0, math.inf]])
def test_the_interval_holds_the_median(values):
    """And comes out the same again."""
    middle, low, high = median_of(values)
    assert low <= middle
    assert high is None or middle <= high
    assert [middle, low, high] == median_of(values)


def test_the_arms_differ_in_the_sampler_alone():
    """One trainer for all of them, with the weights that old rows need, and its share of fresh rows."""
    settings = [arm.learning() for arm in ARMS.values()]
    (same,) = {tuple(sorted(each.items() - {("fresh_share", 0.2)})) for each in settings}
    assert dict(same)["tis"] > 0
    assert ["on-policy"] == [name for name, arm in ARMS.items() if arm.sampler is None]
