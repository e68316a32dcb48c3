"""Fresh rollouts until the game is learned, with and without replay, from `scripts/prove replay-learning`."""

import json
from pathlib import Path

from drawing import SMALL, WIDTH, Picture

FIGURES = Path(__file__).parents[2] / "figures" / "replay-learning.json"
LEFT, RIGHT, ROW, HEAD, UNDER = 165, WIDTH - 14, 30, 30, 44
TICKS = (50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)
"""Steps between two ticks: the first with which there are at most six."""
SPREAD = (-6, 3, -2, 6, 0)
"""Units that the runs of an arm are moved up or down, in turn: equal ones stay apart."""


def reuse() -> Picture:
    """A panel for each game: each run a point, and each arm's median with its 95 % interval."""
    games = json.loads(FIGURES.read_text())["games"]
    panels = [len(game["arms"]) * ROW + HEAD + UNDER for game in games.values()]
    p = Picture(
        "reuse",
        "Fresh rollouts until the game is learned",
        "Each run is a point; the bar is the median's 95 % interval. " + _words(games),
        sum(panels),
    )
    top = 0
    for game, high in zip(games.values(), panels, strict=True):
        _panel(p, game, top)
        top += high
    return p


def _words(games) -> str:
    """The medians, for people who hear the picture."""
    return " ".join(
        f"{arm['label']}: {arm['fresh'][0] or 'more'} of {arm['seeds']} runs."
        for game in games.values()
        for arm in game["arms"].values()
    )


def _panel(p: Picture, game, top: int) -> None:
    arms = [*game["arms"].values()]
    every = [run for arm in arms for run in arm["runs"] if run is not None]
    last = max(every) * 1.03
    bottom = top + HEAD + len(arms) * ROW

    def at(fresh: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * min(fresh / last, 1), 1)

    title = f"numbers 1-{game['numbers']}, {game['guesses']} guesses"
    p.text(LEFT, top + 16, title, size=SMALL, bold=True)
    tick = next(step for step in TICKS if last / step <= 6)
    for fresh in range(0, int(last) + 1, tick):
        p.line((at(fresh), top + HEAD - 4), (at(fresh), bottom), tone="rule", thick=0.8)
        if fresh < last * 0.98:
            p.text(at(fresh), bottom + 15, f"{fresh:,}", size=SMALL, tone="soft", anchor="middle")
    for number, arm in enumerate(arms):
        y = top + HEAD + number * ROW + ROW / 2 - 2
        p.text(LEFT - 10, y + 4, arm["label"], size=SMALL, anchor="end")
        for place, run in enumerate(arm["runs"]):
            if run is None:
                p.cross(at(last), y + SPREAD[place % len(SPREAD)], half=3)
            else:
                p.dot(at(run), y + SPREAD[place % len(SPREAD)], tone="sampled", radius=2.5)
        middle, low, high = (last if value is None else value for value in arm["fresh"])
        p.line((at(low), y), (at(high), y), tone="blue", thick=2.4)
        p.dot(at(middle), y, tone="orange", radius=4.5)
    middle = (LEFT + RIGHT) / 2
    p.text(middle, bottom + 31, "fresh rollouts", size=SMALL, tone="soft", anchor="middle")
