"""`odradek up`: everything that a project names."""

import asyncio
import contextlib
from pathlib import Path

import click
from rich.console import Console

from odradek.infra.app.cli.options import PROJECT
from odradek.infra.app.project import Project, load
from odradek.infra.app.session.progress import RunView, show, teller
from odradek.infra.app.session.session import guard, running
from odradek.infra.app.session.training import TrainingCourse
from odradek.infra.runtime.process import cancelled_by_sigterm, observed


@click.command()
@PROJECT
@click.option("--tasks", type=click.Path(dir_okay=False, path_type=Path), help="Publish this file.")
@click.option(
    "--epochs", type=click.IntRange(min=1), default=1, help="The file, so many times over."
)
def command(folder: Path, tasks: Path | None, epochs: int) -> None:
    """Run everything that a project's odradek.toml names, here or against your Kafka.

    Without a Kafka in the file or in ODRADEK_KAFKA_BOOTSTRAP_SERVERS a local one is started; its
    data stays in .odradek/ beside the logs. Publish work from another terminal with
    `odradek tasks publish`, or here with --tasks. ctrl-C ends everything, cleanly.
    """
    project = load(folder)
    with observed("up"), contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_up(project, tasks, epochs))


async def _up(project: Project, tasks: Path | None, epochs: int) -> None:
    cancelled_by_sigterm()
    console = Console(stderr=True)
    async with running(project, teller(console)) as session:
        console.print("in another terminal of this folder: source .odradek/env", highlight=False)
        course = TrainingCourse(session)
        view = RunView(session, course.rounds)
        view.phase = f"{project.folder.name} is up; ctrl-C ends it"
        display = asyncio.create_task(show(view, console))
        try:
            await guard(session, asyncio.create_task(course.run(tasks, epochs)))
        finally:
            display.cancel()
