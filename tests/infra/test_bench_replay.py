"""The benchmark of the past: what it writes is a past, and its ratios have intervals."""

import math
import statistics

import pytest

from odradek.infra.app.bench.history.search import brief
from odradek.infra.app.bench.history.subscribers import COUNTS, T_975, Interval, figures_of
from odradek.infra.app.bench.history.writer import GROUP, NEEDLE, NEEDLE_IDS, opened_past
from odradek.infra.app.history.steps import LogHistory
from odradek.infra.bus import looking_up
from odradek.streams.history import Selection
from odradek.streams.history.batches import choose
from odradek.streams.history.patterns import Phrase, TokenIds
from odradek.streams.history.search import findings
from odradek.streams.history.spans import RewardSpan


@pytest.mark.parametrize("ratios", [(1.0, 1.0, 1.0), (0.9, 1.1), (1.2, 1.0, 1.1, 1.3)])
def test_an_interval_holds_the_mean_of_its_repeats(ratios):
    """By Student's t over the logarithms; equal repeats leave no room."""
    found = Interval.of(ratios)
    assert math.isclose(math.exp(statistics.fmean(map(math.log, ratios))), found.mean)
    assert found.low <= found.mean * (1 + 1e-12)
    assert found.mean <= found.high * (1 + 1e-12)
    assert (len({*ratios}) == 1) == math.isclose(found.low, found.high)


def test_one_repeat_has_no_interval():
    """Its high end is missing in the figures."""
    assert {"mean": 1.5, "low": 0.0, "high": None} == Interval.of([1.5]).rounded()
    assert sorted(T_975, reverse=True) == list(T_975)


def test_the_broker_is_counted_beside_the_rollout_side():
    """Only the processes that play are in the figure, and each is listed."""
    used = {count: [{"proxy": 8.0, "host": 8.0, "broker": 100.0 * count}] * 2 for count in COUNTS}
    figures = figures_of(used, episodes=8)
    assert {"1": 2.0, "2": 2.0, "4": 2.0} == figures["subscriber_cpu"]
    assert {"mean": 1.0, "low": 1.0, "high": 1.0} == figures["subscriber_ratio"]["4"]
    assert 50.0 == figures["subscriber_processes"]["4"]["broker"]


@pytest.mark.broker
async def test_what_the_benchmark_writes_is_a_past(bus):
    """Its pointers lead to its episodes, its steps are found, and so is each needle.

    Also where it is written on later.
    """
    async with opened_past(bus) as past:
        parts = [await past.write(4 * GROUP) for _ in range(2)]
    assert [(32, 4, 1)] * 2 == [(part.episodes, part.batches, part.steps) for part in parts]
    choice = await choose(bus, Selection(reward=RewardSpan(1.0, 1.0)), pointers=True)
    assert 4 * 8 == sum(len(batch.pointers) for batch in choice.taken)
    async with looking_up(bus) as lookup:
        step = await LogHistory(lookup).step(2)
    places = [f"rl.batches.v1/0/{offset}" for offset in (4, 5, 6, 7)]
    assert (places, 32) == (
        [batch.at for batch in step.batches],
        sum(len(batch.rows) for batch in step.batches),
    )
    for pattern in (Phrase(NEEDLE), TokenIds.parse(" ".join(map(str, NEEDLE_IDS)))):
        found = [one.episode_id async for one in findings(bus, pattern)]
        assert ["episode-00000000"] == found


def test_the_trivial_reward_is_trivial():
    """It looks at what is there and computes nothing."""
    assert 0.0 == brief(type("Talk", (), {"turns": ()})())
