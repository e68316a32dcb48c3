"""The report of a demo: one page, its plots, and the figures as JSON."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from odradek.infra.app.demo.course import DemoCourse
from odradek.infra.app.demo.outcome import succeeded
from odradek.infra.app.demo.plots import draw

TEMPLATE: Final = Path(__file__).with_name("report.html.j2")


def write(course: DemoCourse, figures: Mapping[str, Any], folder: Path) -> Path:
    """Write report and plots into a folder; returns the page's path."""
    from jinja2 import Environment

    folder.mkdir(parents=True, exist_ok=True)
    plots = draw(course, folder, figures.get("trainers", {}))
    (folder / "demo.json").write_text(json.dumps(figures, indent=1) + "\n")
    page = folder / "index.html"
    template = Environment(autoescape=True, trim_blocks=True, keep_trailing_newline=True)
    text = template.from_string(TEMPLATE.read_text()).render(
        figures=figures,
        success=succeeded(figures),
        problem=problem(figures),
        cards=cards(figures),
        plots=plots,
        conservation=rows(figures["conservation"]),
        sum=closing(figures["conservation"]),
        most_cpu=max([*figures["cpu_s"].values(), 0.1]),
        rounds=course.rounds,
    )
    page.write_text(text)
    return page


def problem(figures: Mapping[str, Any]) -> str:
    """Why a run does not count as a success."""
    parts = []
    if figures["greedy_success"] < figures["target"]:
        parts.append(
            f"greedy success {figures['greedy_success']:.2f} after {figures['steps']} steps"
        )
    if not figures["conservation"].get("closed"):
        parts.append("the counts do not close")
    return " and ".join(parts)


def cards(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The figures at the top of the page."""
    return [
        ("greedy success, first", f"{figures['greedy_success_first']:.2f}"),
        ("greedy success, last", f"{figures['greedy_success']:.2f}"),
        ("sampled success, first", f"{figures['sampled_success_first']:.2f}"),
        ("sampled success, last", f"{figures['sampled_success_last']:.2f}"),
        ("optimizer steps", str(figures["steps"])),
        ("seconds", f"{figures['wall_s']:.0f}"),
        ("episodes a second", f"{figures['episodes_per_s']:.1f}"),
        ("staleness, mean (max)",
         f"{figures['staleness']['mean']:.1f} ({figures['staleness']['max']:.0f})"),
        ("process restarts", str(figures["process_restarts"])),
    ]  # fmt: skip


def summed(trained: Mapping[str, Any]) -> str:
    """What became of one of several trainers, in a line."""
    first, last = trained["curve"][0], trained["curve"][-1]
    refused = sum(trained["refused"].values())
    return (
        f"success {first[1]:.2f} → {last[1]:.2f} in {trained['steps']} steps; of "
        f"{trained['batches_used']} batches {trained['rows_used']} rows used, {refused} refused"
    )


def rows(conservation: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The conservation table: counts of training and of evaluation."""
    other = conservation.get("eval", {})
    cells: list[tuple[str, str, str]] = []
    for name, value in conservation.items():
        if name in {"closed", "eval"}:
            continue
        if isinstance(value, Mapping):
            reasons = sorted({*value, *other.get(name, {})})
            cells += [
                (f"{name}: {reason}", str(value.get(reason, 0)),
                 str(other.get(name, {}).get(reason, 0)))
                for reason in reasons
            ] or [(name, "0", "0")]  # fmt: skip
        else:
            cells.append((name, str(value), str(other.get(name, ""))))
    closed = "yes" if conservation.get("closed") else "NO"
    return [*cells, ("the sums close", closed, "")]


def closing(conservation: Mapping[str, Any]) -> str:
    """The sum in words."""
    excluded = sum(conservation.get("exclusions", {}).values())
    return (
        f"{conservation.get('samples', 0)} samples asked for = "
        f"{conservation.get('episodes', 0)} episodes in batches + {excluded} exclusions"
    )
