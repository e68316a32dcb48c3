"""The learning curve of a real run, from its recorded figures."""

import json
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

    def at(step: float, value: float) -> tuple[float, float]:
        return (round(LEFT + (RIGHT - LEFT) * step / last, 1),
                round(BOTTOM - (BOTTOM - TOP) * value, 1))  # fmt: skip

    for tenth in range(0, 11, 2):
        y = at(0, tenth / 10)[1]
        p.line((LEFT, y), (RIGHT, y), tone="rule", thick=0.8)
        p.text(LEFT - 6, y + 4, f"{tenth / 10:.1f}", size=SMALL, tone="soft", anchor="end")
    for step in range(0, last + 1, 10):
        p.text(at(step, 0)[0], BOTTOM + 18, str(step), size=SMALL, tone="soft", anchor="middle")
    p.text(
        (LEFT + RIGHT) / 2,
        BOTTOM + 38,
        "success by optimizer step",
        size=SMALL,
        tone="soft",
        anchor="middle",
    )
    p.line(at(0, target), at(last, target), tone="green", dashed=True)
    p.line(*(at(step, value) for step, value in sampled), tone="line", thick=0.8)
    means = []
    for number, (step, _) in enumerate(sampled):
        window = [value for _, value in sampled[max(0, number - MEAN + 1) : number + 1]]
        means.append(at(step, sum(window) / len(window)))
    p.line(*means, tone="blue", thick=2.2)
    p.line(*(at(step, value) for step, value in greedy), tone="orange", thick=1.8)
    for step, value in greedy:
        p.dot(*at(step, value), tone="orange")
    x = LEFT
    for tone, label, wide in (("orange", "greedy", 80), ("blue", f"sampled, mean of {MEAN} steps", 190),
                              ("line", "each step", 94), ("green", "target", 60)):  # fmt: skip
        p.line((x, 12), (x + 16, 12), tone=tone, thick=2.4)
        p.text(x + 21, 16, label, size=SMALL, tone="soft")
        x += wide
    return p
