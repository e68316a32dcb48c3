"""The result of a demo: the figures of `--json`, and whether it counts as a success."""

from collections.abc import Mapping, Sequence
from typing import Any

from odradek.infra.app.demo.course import DemoCourse
from odradek.infra.app.demo.curves import Curves
from odradek.streams.verify.report import Report


def outcome(
    course: DemoCourse, conservation: Mapping[str, Any], *, wall_s: float
) -> dict[str, Any]:
    """The figures under the names that programs rely on, and more beside them.

    Args:
        course: The run.
        conservation: What `odradek verify` counted from the topics.
        wall_s: From the command's start.
    """
    tally = course.session.tally
    greedy = [evaluation for evaluation in course.rounds if evaluation.kind == "greedy"]
    chance = [evaluation for evaluation in course.rounds if evaluation.kind == "sampled"]
    mean, highest = tally.staleness()
    restarts = course.session.supervisor.restarts
    return {
        "greedy_success": greedy[-1].success if greedy else 0.0,
        "greedy_success_first": greedy[0].success if greedy else 0.0,
        "sampled_success_first": chance[0].success if chance else 0.0,
        "sampled_success_last": chance[-1].success if len(chance) > 1 else 0.0,
        "target": course.aims.target,
        "steps": tally.last_step,
        "wall_s": round(wall_s, 1),
        "conservation": dict(conservation),
        "staleness": {"mean": round(mean, 3), "max": highest},
        "process_restarts": sum(restarts.values()),
        "restarts_by_process": {name: n for name, n in restarts.items() if n},
        "kills": [{"process": name, "step": step} for name, step, _ in course.kills],
        "episodes_per_s": round(_rate(course), 1),
        "phases": _phases(course, wall_s),
        "cpu_s": {name: round(seconds, 1) for name, seconds in course.costs.seconds.items()},
        "trainer_s": _trainer_seconds(course),
        "mismatch": _mismatch(course),
        "dead_letters": dict(tally.letters),
        "curve": _curve(course),
    }


def trainers_of(report: Report, losses: Sequence[str], curves: Curves) -> dict[str, Any]:
    """Trainers on the same batches, by loss: what each used, by its own ledger, and learned.

    `curve` has (step, success as in training, greedy success) of its checkpoints.
    """
    runs = {table["run"]: table for table in report.trainers}
    leader = next(run for run, table in runs.items() if not table["sampled_by"])
    found = {}
    for loss in losses:
        table = runs[leader if loss == losses[0] else loss]
        found[loss] = {
            "leads": not table["sampled_by"],
            "policy": table["policy"],
            **{name: table[name] for name in ("steps", "batches_used", "rows_used", "refused")},
            "curve": [
                (step, *(round(value, 4) for value in success)) for step, *success in curves[loss]
            ],
        }
    return found


def _curve(course: DemoCourse) -> dict[str, list[tuple[int, float]]]:
    """The learning curves as (step, value).

    `sampled` and `greedy` are success of each step's samples and of each greedy evaluation,
    `children` the mean own reward of the agents that were asked.
    """
    steps = sorted(course.session.tally.steps.items())
    sampled = [(at, step.metrics["success"]) for at, step in steps if "success" in step.metrics]
    greedy = [
        (evaluation.step, evaluation.success)
        for evaluation in course.rounds
        if evaluation.kind == "greedy"
    ]
    curves = {"sampled": sampled, "greedy": greedy, "children": children_by_step(course)}
    return {
        name: [(at, round(value, 4)) for at, value in points] for name, points in curves.items()
    }


def children_by_step(course: DemoCourse) -> list[tuple[int, float]]:
    """(step, mean own reward) of the children whose episodes ended since the step before."""
    points = []
    steps = sorted(course.session.tally.steps.items())
    played = iter(sorted(course.session.tally.episodes_of("train"), key=lambda one: one.at))
    one = next(played, None)
    for number, step in steps:
        values: list[float] = []
        while one is not None and one.at <= step.at:
            values += one.children
            one = next(played, None)
        if values:
            points.append((number, sum(values) / len(values)))
    return points


def _mismatch(course: DemoCourse) -> dict[str, float | int | None]:
    """Engine against trainer, over tokens that were sampled by the weights of their own step.

    `max_logprob` in nats, the largest of all steps; `k3`, the KL estimate of the worst step;
    `steps` in which there were such tokens. Without any, the first two were not measured: None.
    """
    metrics = [step.metrics for step in course.session.tally.steps.values()]
    measured = [step for step in metrics if "mismatch_k3" in step and "mismatch_max" in step]
    return {
        "max_logprob": max((step["mismatch_max"] for step in measured), default=None),
        "k3": max((step["mismatch_k3"] for step in measured), default=None),
        "steps": len(measured),
    }


def succeeded(figures: Mapping[str, Any]) -> bool:
    """Whether the model has learned and every count closes."""
    closed = bool(figures["conservation"].get("closed"))
    return closed and figures["greedy_success"] >= figures["target"]


def _phases(course: DemoCourse, wall_s: float) -> dict[str, float]:
    """Seconds of each part of the run; what is left went into starting and ending."""
    seconds = {phase.name: round(phase.ended - phase.began, 1) for phase in _merged(course)}
    return {"starting and counting": round(max(0.0, wall_s - sum(seconds.values())), 1), **seconds}


def _merged(course: DemoCourse) -> list[Any]:
    """Phases, those of the same name added up."""
    merged: dict[str, Any] = {}
    for phase in course.phases:
        if phase.name in merged:
            merged[phase.name].ended += phase.ended - phase.began
        else:
            merged[phase.name] = type(phase)(phase.name, phase.began, phase.ended)
    return list(merged.values())


def _rate(course: DemoCourse) -> float:
    """Training episodes a second while training."""
    training = [phase for phase in course.phases if phase.name == "training"]
    seconds = sum(phase.ended - phase.began for phase in training)
    played = [
        p
        for p in course.session.tally.episodes_of("train")
        if any(phase.began <= p.at <= phase.ended for phase in training)
    ]
    return len(played) / seconds if seconds else 0.0


def _trainer_seconds(course: DemoCourse) -> dict[str, float]:
    """Where the trainer's time went, summed over its steps."""
    sums: dict[str, float] = {}
    for step in course.session.tally.steps.values():
        for name in ("wait_s", "train_s", "checkpoint_s", "sync_s"):
            sums[name] = sums.get(name, 0.0) + step.metrics.get(name, 0.0)
    return {name: round(value, 1) for name, value in sums.items()}
