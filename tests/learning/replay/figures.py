"""Medians of the results of runs, with their intervals, by game and arm."""

import math
import random
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any, Final

from tests.learning.replay.arms import ARMS
from tests.learning.replay.games import GAMES
from tests.support.suite.results import Result

RESAMPLES: Final = 10_000
ALONE: Final = "on-policy"
"""The arm that all others are compared with."""


def median_of(values: Sequence[float], seed: int = 0) -> list[float | None]:
    """The median and its 95 % interval, by the percentiles of bootstrapped medians.

    Infinite values are runs that needed more than anybody waited for; None is such a number.
    """
    chance = random.Random(seed)
    middles = sorted(median(chance.choices(values, k=len(values))) for _ in range(RESAMPLES))
    found = (median(values), middles[RESAMPLES // 40], middles[-RESAMPLES // 40 - 1])
    return [round(value, 4) if math.isfinite(value) else None for value in found]


def compared(results: Iterable[Result]) -> dict[str, Any]:
    """By game and arm: fresh rollouts, their ratio to fresh batches alone, steps, and each run.

    Counted is the first of the evaluations in a row that reach the target; `first_touch` is the
    first evaluation that does. A run that did not reach its target counts as needing more than any
    other. A ratio is of two runs of one seed, with one model to begin with.
    """
    runs = {(one["game"], one["arm"], one["seed"]): one for one in results}
    games: dict[str, Any] = {}
    for name, game in GAMES.items():
        arms = {arm: made for arm in ARMS if (made := _arm(runs, name, arm))}
        if arms:
            games[name] = {
                "numbers": game.high,
                "guesses": game.guesses,
                "target": game.target,
                "arms": arms,
            }
    return games


def _arm(runs: dict[tuple[str, str, int], Result], game: str, arm: str) -> dict[str, Any]:
    mine = {seed: one for (g, a, seed), one in runs.items() if (g, a) == (game, arm)}
    if not mine:
        return {}
    alone = {seed: one for (g, a, seed), one in runs.items() if (g, a) == (game, ALONE)}
    fresh = {seed: _fresh(one) for seed, one in mine.items()}
    ratios = [
        fresh[seed] / _fresh(alone[seed])
        for seed in sorted(fresh.keys() & alone.keys())
        if math.isfinite(_fresh(alone[seed]))
    ]
    return {
        "label": ARMS[arm].label,
        "seeds": len(mine),
        "reached": sum(one["reached"] for one in mine.values()),
        "fresh": median_of([*fresh.values()]),
        "ratio": median_of(ratios) if ratios else None,
        "steps": median(one["steps"] for one in mine.values()),
        "first_touch": median_of([_touched(one) for one in mine.values()]),
        "runs": [one["fresh_sure"] for _, one in sorted(mine.items())],
    }


def _fresh(one: Result) -> float:
    """At the first of the evaluations in a row that reached the target."""
    return math.inf if one["fresh_sure"] is None else float(one["fresh_sure"])


def _touched(one: Result) -> float:
    """At the first evaluation that reached it, whether or not the next ones did."""
    return math.inf if one["fresh"] is None else float(one["fresh"])


def lines(games: dict[str, Any]) -> list[str]:
    """The table, as Markdown."""
    made = [
        "| game | trainer reads | runs, reached | fresh rollouts [95 %] | of fresh alone | steps |",
        "|---|---|---|---|---|---|",
    ]
    for game in games.values():
        for of in game["arms"].values():
            ratio = "-" if of["ratio"] is None else _interval(of["ratio"], "{:.2f}")
            made.append(
                f"| 1-{game['numbers']}, {game['guesses']} guesses | {of['label']} | "
                f"{of['seeds']}, {of['reached']} | {_interval(of['fresh'], '{:,.0f}')} | {ratio} | "
                f"{of['steps']:,.0f} |"
            )
    return made


def _interval(values: Sequence[float | None], form: str) -> str:
    middle, low, high = ("more" if value is None else form.format(value) for value in values)
    return f"{middle} [{low}, {high}]"
