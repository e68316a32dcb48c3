"""The learning curves of real runs, from their recorded figures."""

import json
from collections.abc import Callable
from pathlib import Path

from drawing import SMALL, WIDTH, Picture

FIGURES = Path(__file__).parents[2] / "figures" / "learning.json"
LEFT, RIGHT, TOP, BOTTOM = 44, WIDTH - 10, 34, 250
MEAN = 8
"""Steps of the moving mean."""


def learning() -> Picture:
    """Success by optimizer step: each step's samples, their moving mean, greedy evaluations."""
    run = json.loads(FIGURES.read_text())
    sampled, greedy, target = run["curve"]["sampled"], run["curve"]["greedy"], run["target"]
    last = max(at for at, _ in [*sampled, *greedy])
    p = Picture(
        "learning",
        "The demo's model learns",
        f"Success by optimizer step. Greedy success rises from {greedy[0][1]:.2f} to "
        f"{greedy[-1][1]:.2f} in {last} steps; {run['conservation']['samples']} samples.",
        300,
    )

    at = _axes(p, last, every=10, title="success by optimizer step")
    p.line(at(0, target), at(last, target), tone="green", dashed=True)
    p.line(*(at(step, value) for step, value in sampled), tone="line", thick=0.8)
    p.line(*(at(step, value) for step, value in _means(sampled)), tone="blue", thick=2.2)
    p.line(*(at(step, value) for step, value in greedy), tone="orange", thick=1.8)
    for step, value in greedy:
        p.dot(*at(step, value), tone="orange")
    _legend(p, ("orange", "greedy", 80), ("blue", f"sampled, mean of {MEAN} steps", 190),
            ("line", "each step", 94), ("green", "target", 60))  # fmt: skip
    return p


def pairs() -> Picture:
    """Two agents: how often the asker finds the number, and how often the answerer is right."""
    run = json.loads(FIGURES.with_name("pairs.json").read_text())
    curve, last = run["curve"], run["steps"]
    sampled, greedy, truth = _means(curve["sampled"]), curve["greedy"], _means(curve["children"])
    p = Picture(
        "pairs",
        "Two agents learn on one policy",
        f"By optimizer step. The asker's greedy success rises from {greedy[0][1]:.2f} to "
        f"{greedy[-1][1]:.2f}, the share of true answers from {truth[0][1]:.2f} to "
        f"{truth[-1][1]:.2f}.",
        300,
    )

    at = _axes(p, last, every=20, title="optimizer step")
    for tone, points in (("green", truth), ("blue", sampled), ("orange", greedy)):
        p.line(*(at(step, value) for step, value in points), tone=tone, thick=2.0)
    _legend(p, ("orange", "asker, greedy", 118), ("blue", "asker, sampled", 126),
            ("green", "answers that are true", 160))  # fmt: skip
    return p


def _axes(
    p: Picture, last: int, *, every: int, title: str
) -> Callable[[float, float], tuple[float, float]]:
    """Draw axes from step 0 to the last and from 0 to 1; where a step's value stands between them."""

    def at(step: float, value: float) -> tuple[float, float]:
        return (round(LEFT + (RIGHT - LEFT) * step / last, 1),
                round(BOTTOM - (BOTTOM - TOP) * value, 1))  # fmt: skip

    for tenth in range(0, 11, 2):
        y = at(0, tenth / 10)[1]
        p.line((LEFT, y), (RIGHT, y), tone="rule", thick=0.8)
        p.text(LEFT - 6, y + 4, f"{tenth / 10:.1f}", size=SMALL, tone="soft", anchor="end")
    for step in range(0, last + 1, every):
        p.text(at(step, 0)[0], BOTTOM + 18, str(step), size=SMALL, tone="soft", anchor="middle")
    middle = (LEFT + RIGHT) / 2
    p.text(middle, BOTTOM + 38, title, size=SMALL, tone="soft", anchor="middle")
    return at


def _legend(p: Picture, *lines: tuple[str, str, int]) -> None:
    """Say above the curves what each is: its tone, its name, and how wide that stands."""
    x = LEFT
    for tone, label, wide in lines:
        p.line((x, 12), (x + 16, 12), tone=tone, thick=2.4)
        p.text(x + 21, 16, label, size=SMALL, tone="soft")
        x += wide


def _means(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """The mean of the last few values at each step."""
    made = []
    for number, (step, _) in enumerate(points):
        window = [value for _, value in points[max(0, number - MEAN + 1) : number + 1]]
        made.append((step, sum(window) / len(window)))
    return made
