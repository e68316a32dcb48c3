"""`odradek evaluate`: tasks with `purpose: eval`, whenever a policy is due."""

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from odradek.infra.app.exports import SINKS

if TYPE_CHECKING:
    from odradek.infra.app.session.evaluation_course import EvaluationCourse


@click.command()
@click.argument("tasks", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--every",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="Optimizer steps between two evaluations.",
)
@click.option(
    "--samples", type=click.IntRange(1), help="Samples of each task; else its group_size."
)
@click.option("--component", default="", help="The reward that decides success; else the whole.")
@click.option(
    "--success", type=float, default=1.0, show_default=True, help="The least value of a success."
)
@click.option(
    "--policy",
    envvar="ODRADEK_POLICY",
    default="policy",
    show_default=True,
    help="The policy whose weights are evaluated.",
)
@click.option("--once", is_flag=True, help="Evaluate the policy in force, and end.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds of a round; else the largest group_s of its tasks.",
)
@click.option("--to", type=click.Choice(list(SINKS)), default="csv", show_default=True,
              help="What the figures are written to.")  # fmt: skip
@click.option("--run", default="main", show_default=True, help="They are written as RUN-eval.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs/exports"),
    show_default=True,
    help="Folder of what is written.",
)
@click.option("--project", default="odradek", show_default=True, help="As of `odradek export`.")
def command(**options: Any) -> None:
    """Evaluate a run while it trains: play TASKS every n optimizer steps.

    TASKS is a file as of `odradek tasks publish`. When the trainer announces a policy that is due,
    they are published with the purpose `eval`. They pass through the same agents and judges as all
    others and are never trained on. pass@k (Chen et al. 2021) and its 95 % interval are printed and
    written to a sink of `odradek export`. docs/watch-a-run.md tells more.
    """
    with contextlib.suppress(asyncio.CancelledError):  # SIGTERM: every round is written at once
        _evaluate(**options)


def _evaluate(
    *,
    tasks: Path,
    every: int,
    samples: int | None,
    component: str,
    success: float,
    policy: str,
    once: bool,
    timeout_s: float | None,
    to: str,
    run: str,
    out: Path,
    project: str,
) -> None:
    import msgspec

    from odradek.infra.app.exports.points import PointWriter
    from odradek.infra.app.exports.sink import SinkOptions, StepPoint
    from odradek.infra.app.exports.state import ExportState, StateFile
    from odradek.infra.app.project.tasks import read
    from odradek.infra.app.session.evaluation import EvaluationRound
    from odradek.infra.app.session.evaluation_course import EvaluationCourse, EvaluationSchedule
    from odradek.infra.app.session.follower import RunFollower
    from odradek.infra.app.session.stats import RunStats
    from odradek.infra.bus import BusSettings
    from odradek.schemas.topics import POLICIES

    chosen = read(tasks)
    if samples is not None:
        chosen = [msgspec.structs.replace(task, group_size=samples) for task in chosen]
    bus, sinks = BusSettings(), SINKS[to].load()
    options = SinkOptions(run=f"{run}-eval", folder=out, project=project)
    out.mkdir(parents=True, exist_ok=True)
    file = StateFile(out / f"{options.file_name}.{to}.json")
    with file.claimed(), contextlib.ExitStack() as stack:
        begun = ExportState(run=options.run, sink=to, ledger=bus.topic(POLICIES.name))
        writer = PointWriter(sinks, options, file, file.load(begun))
        stack.callback(writer.close)

        def tell(made: EvaluationRound) -> None:
            click.echo(made.line())
            writer.add(StepPoint(made.step, made.at, made.metrics()))

        course = EvaluationCourse(
            bus,
            policy,
            chosen,
            EvaluationSchedule(every, writer.last),
            RunFollower(bus, RunStats(component=component, success=success), since="end"),
            tell,
            timeout_s or max(task.timeouts.group_s for task in chosen),
        )
        asyncio.run(_run(course, once=once))


async def _run(course: "EvaluationCourse", *, once: bool) -> None:
    from odradek.infra.runtime.process import cancelled_by_sigterm

    cancelled_by_sigterm()
    await course.run(once=once)
