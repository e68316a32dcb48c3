"""What each loss learns from the same recorded batches, from `scripts/prove losses`."""

import json
from pathlib import Path

from drawing import SMALL, WIDTH, Picture

FIGURES = Path(__file__).parents[2] / "figures" / "losses.json"
COLUMNS, LEFT, TOP = 4, 30, 26
WIDE, HIGH, GAP, UNDER = (WIDTH - LEFT - 4) / COLUMNS, 78, 10, 34
LOW, TOO_HIGH = 0.3, 0.9
"""The scale: lower and higher success than any loss has."""


def losses() -> Picture:
    """A panel for each loss: mean success of all seeds by step, with the lowest and the highest."""
    run = json.loads(FIGURES.read_text())
    curves = run["losses"]
    rows = -(-len(curves) // COLUMNS)
    last = next(iter(curves.values()))[-1]["step"]
    ends = [points[-1]["mean"] for points in curves.values()]
    p = Picture(
        "losses",
        "Twelve losses learn from the same batches",
        f"Success in the game by optimizer step, {run['seeds']} seeds: mean, lowest and highest. "
        f"After {last} steps the means lie between {min(ends):.2f} and {max(ends):.2f}.",
        TOP + rows * (HIGH + UNDER) + 4,
    )
    for place, (name, points) in enumerate(curves.items()):
        left = LEFT + (place % COLUMNS) * WIDE
        top = TOP + (place // COLUMNS) * (HIGH + UNDER)

        def at(step: float, value: float, left: float = left, top: float = top):
            share = (value - LOW) / (TOO_HIGH - LOW)
            return round(left + (WIDE - GAP) * step / last, 1), round(top + HIGH * (1 - share), 1)

        p.text(left, top - 6, name, size=SMALL, bold=True)
        for value in (0.4, 0.6, 0.8):
            p.line(at(0, value), at(last, value), tone="rule", thick=0.8)
            if place % COLUMNS == 0:
                x, y = at(0, value)
                p.text(x - 4, y + 4, f"{value:.1f}", size=SMALL, tone="soft", anchor="end")
        p.area(
            *(at(point["step"], point["high"]) for point in points),
            *(at(point["step"], point["low"]) for point in reversed(points)),
            tone="sampled",
        )
        p.line(*(at(point["step"], point["mean"]) for point in points), tone="blue", thick=2)
        if place // COLUMNS == rows - 1:
            p.text(left, top + HIGH + 14, "0", size=SMALL, tone="soft")
            p.text(
                left + WIDE - GAP,
                top + HIGH + 14,
                f"{last} steps",
                size=SMALL,
                tone="soft",
                anchor="end",
            )
    return p
