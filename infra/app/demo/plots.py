"""The plots of a run, as PNG files."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from odradek.infra.app.console.run.curves import moving
from odradek.infra.app.demo.course import DemoCourse
from odradek.infra.app.demo.outcome import children_by_step
from odradek.infra.app.session.stats import PlayedEpisode

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WINDOW: Final = 192
"""Episodes of a moving mean."""
BLUE, ORANGE, GREY, GREEN = "#2b6cb0", "#dd6b20", "#a0aec0", "#2f855a"
LINES: Final = (BLUE, ORANGE, GREEN, "#805ad5", "#b83280")
"""Of trainers side by side."""


def draw(
    course: DemoCourse, folder: Path, trainers: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """Draw every plot; returns {file name: caption}.

    Args:
        course: The run.
        folder: Where files go.
        trainers: By loss, what several trainers on the same batches learned; empty: there was one.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    captions = {}
    beside: dict[str, tuple[str, Callable[[DemoCourse, Any], None]]] = {
        "trainers.png": (
            "Trainers on the same batches: success of their checkpoints",
            partial(_trainers, trainers),
        )
    }
    for name, (caption, paint) in {**(beside if trainers else {}), **PLOTS}.items():
        figure, axes = plt.subplots(figsize=(7.2, 3.4), dpi=110, layout="constrained")
        paint(course, axes)
        axes.grid(visible=True, alpha=0.25)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=8)
        figure.savefig(folder / name)
        plt.close(figure)
        captions[name] = caption
    return captions


def _steps(course: DemoCourse, name: str) -> tuple[list[int], list[float]]:
    pairs = [
        (number, step.metrics[name])
        for number, step in sorted(course.session.tally.steps.items())
        if name in step.metrics
    ]
    return [number for number, _ in pairs], [value for _, value in pairs]


def _played(course: DemoCourse) -> list[PlayedEpisode]:
    return [p for p in course.session.tally.episodes_of("train") if p.counts]


def _kills_by_step(course: DemoCourse, axes: "Axes") -> None:
    for name, step, _ in course.kills:
        axes.axvline(step, color=GREY, linestyle=":")
        axes.text(step, axes.get_ylim()[1], f" kill -9 {name}", fontsize=6, rotation=90, va="top")


def _success_by_step(course: DemoCourse, axes: "Axes") -> None:
    steps, values = _steps(course, "success")
    axes.plot(steps, values, color=GREY, linewidth=0.8, label="sampled, each step")
    axes.plot(steps, moving(values, 8), color=BLUE, label="sampled, mean of 8 steps")
    greedy = [evaluation for evaluation in course.rounds if evaluation.kind == "greedy"]
    axes.plot([r.step for r in greedy], [r.success for r in greedy], "o-", color=ORANGE,
              markersize=3, label="greedy")  # fmt: skip
    if children := children_by_step(course):
        at, own = [number for number, _ in children], [value for _, value in children]
        axes.plot(at, moving(own, 8), color=GREEN, label="own reward of children, mean of 8 steps")
    axes.axhline(course.aims.target, color=GREEN, linestyle="--", linewidth=0.8, label="target")
    axes.set(xlabel="optimizer step", ylabel="success", ylim=(0, 1.05))
    _kills_by_step(course, axes)


def _trainers(trainers: Mapping[str, Mapping[str, Any]], _course: DemoCourse, axes: "Axes") -> None:
    for color, (name, trained) in zip(cycle(LINES), trainers.items(), strict=False):
        label = f"{name}, which leads" if trained["leads"] else f"{name}, beside it"
        steps, sampled, _ = zip(*trained["curve"], strict=True)
        axes.plot(steps, sampled, "o-", color=color, markersize=3, label=label)
    axes.set(xlabel="optimizer step", ylabel="success, sampled", ylim=(0, 1.05))


def _reward_by_step(course: DemoCourse, axes: "Axes") -> None:
    steps, values = _steps(course, "reward_mean")
    axes.plot(steps, values, color=GREY, linewidth=0.8, label="each step")
    axes.plot(steps, moving(values, 8), color=BLUE, label="mean of 8 steps")
    axes.set(xlabel="optimizer step", ylabel="mean reward")
    _kills_by_step(course, axes)


def _since_start(course: DemoCourse, times: Sequence[float]) -> list[float]:
    began = course.phases[0].began if course.phases else 0.0
    return [at - began for at in times]


def _success_by_time(course: DemoCourse, axes: "Axes") -> None:
    played = _played(course)
    times = _since_start(course, [p.at for p in played])
    axes.plot(times, moving([float(p.success) for p in played], WINDOW), color=BLUE,
              label=f"sampled, mean of {WINDOW} episodes")  # fmt: skip
    greedy = [evaluation for evaluation in course.rounds if evaluation.kind == "greedy"]
    axes.plot(_since_start(course, [r.at for r in greedy]), [r.success for r in greedy], "o-",
              color=ORANGE, markersize=3, label="greedy")  # fmt: skip
    axes.axhline(course.aims.target, color=GREEN, linestyle="--", linewidth=0.8, label="target")
    axes.set(xlabel="seconds", ylabel="success", ylim=(0, 1.05))


def _reward_by_time(course: DemoCourse, axes: "Axes") -> None:
    played = [p for p in _played(course) if p.reward is not None]
    times = _since_start(course, [p.at for p in played])
    axes.plot(times, moving([p.reward or 0.0 for p in played], WINDOW), color=BLUE,
              label=f"mean of {WINDOW} episodes")  # fmt: skip
    axes.set(xlabel="seconds", ylabel="reward")


def _staleness(course: DemoCourse, axes: "Axes") -> None:
    steps, highest = _steps(course, "staleness_max")
    axes.step(steps, highest, color=GREY, label="oldest row", where="mid")
    steps, mean = _steps(course, "staleness_mean")
    axes.plot(steps, mean, color=BLUE, label="mean")
    axes.set(xlabel="optimizer step", ylabel="staleness (optimizer steps)", ylim=(0, None))


def _throughput(course: DemoCourse, axes: "Axes") -> None:
    times = _since_start(course, [p.at for p in course.session.tally.episodes])
    if times:
        width = 2.0
        last = int(max(times) // width) + 1
        counts = [0] * last
        for at in times:
            counts[max(0, min(last - 1, int(at // width)))] += 1
        axes.step([width * n for n in range(last)], [n / width for n in counts], color=BLUE,
                  where="post", label="episodes")  # fmt: skip
    axes.set(xlabel="seconds", ylabel="episodes a second", ylim=(0, None))


def _loss(course: DemoCourse, axes: "Axes") -> None:
    steps, values = _steps(course, "loss")
    axes.plot(steps, values, color=GREY, linewidth=0.8, label="loss")
    axes.plot(steps, moving(values, 8), color=BLUE, label="loss, mean of 8 steps")
    axes.set(xlabel="optimizer step", ylabel="loss")


PLOTS: Final[dict[str, tuple[str, Callable[[DemoCourse, Any], None]]]] = {
    "success_by_step.png": ("Success by step", _success_by_step),
    "success_by_time.png": ("Success by time", _success_by_time),
    "reward_by_step.png": ("Reward by step", _reward_by_step),
    "reward_by_time.png": ("Reward by time", _reward_by_time),
    "staleness.png": ("Staleness of the rows trained on", _staleness),
    "throughput.png": ("Throughput", _throughput),
    "loss.png": ("Loss", _loss),
}
