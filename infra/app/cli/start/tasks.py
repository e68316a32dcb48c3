"""`odradek tasks`: publish tasks from a file of JSON lines."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

import click

from odradek.infra.app.cli.options import WholeSentences
from odradek.infra.app.cli.progress import counting
from odradek.infra.app.project.pools import SuccessPool, success_rates
from odradek.infra.app.project.tasks import epochs as repeated
from odradek.infra.app.project.tasks import read
from odradek.infra.bus import BusSettings, KafkaAppender, reader, require_topics
from odradek.infra.client import publish_task, warn
from odradek.infra.errors import ProjectError
from odradek.infra.runtime.process import observed
from odradek.schemas import codec
from odradek.schemas.events import Batch, Task
from odradek.schemas.topics import BATCHES, TASKS

AT_ONCE = 64


@click.group(cls=WholeSentences)
def command() -> None:
    """Publish tasks; each is one group of samples that are compared with each other."""


@command.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--epochs", type=click.IntRange(min=1), default=1, help="How many times over.")
@click.option(
    "--keep-ids", is_flag=True, help="Use the task_id of each line in place of a fresh one."
)
@click.option(
    "--solved",
    metavar="LOW:HIGH",
    help="Only tasks whose item was solved so often lately, such as 0.1:0.9, and new ones.",
)
@click.option(
    "--success", default=1.0, show_default=True, help="Reward from which on a sample is solved."
)
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def publish(
    file: Path, epochs: int, keep_ids: bool, solved: str | None, success: float, as_json: bool
) -> None:
    """Publish the tasks of FILE, one JSON object a line, to rl.tasks.v1.

    \b
    {"item": "secret-3", "agent": "hilo", "input": {"secret": 3}, "group_size": 8,
     "rewards": {"game": 1.0}}

    Every line is checked first: a bad one is named, and nothing is published. How often an `item`
    was solved is counted over its newest 32 samples in rl.batches.v1.
    """  # noqa: D301 - \b is click's sign for "do not wrap"
    if keep_ids and epochs > 1:
        raise click.UsageError("--keep-ids and --epochs exclude each other: ids must be unique")
    tasks = read(file, keep_ids=keep_ids)
    if solved is not None:
        tasks = _in_pool(tasks, SuccessPool.parse(solved), success)
    chosen = tasks if keep_ids else repeated(tasks, epochs)
    warn(tasks)
    with observed("tasks"):
        asyncio.run(_publish(chosen, quiet=as_json))
    if as_json:
        answer = {"published": len(chosen), "task_ids": [task.task_id for task in chosen]}
        click.echo(json.dumps(answer))
    else:
        samples = sum(task.group_size for task in chosen)
        click.echo(f"{len(chosen)} tasks published, {samples} samples asked for")


def _in_pool(tasks: list[Task], pool: SuccessPool, success: float) -> list[Task]:
    """The tasks of a pool, by what the log says of each agent's. Raises ProjectError for none."""
    batches = asyncio.run(_batches())
    chosen = [
        task
        for agent in dict.fromkeys(task.agent for task in tasks)
        for task in pool.tasks(
            [task for task in tasks if task.agent == agent], success_rates(batches, success, agent)
        )
    ]
    if not chosen:
        raise ProjectError(
            f"none of {len(tasks)} tasks was solved between {pool.low:g} and {pool.high:g} of the "
            "time lately, and all were played: give wider bounds to --solved"
        )
    return chosen


async def _batches() -> list[Batch]:
    bus = BusSettings()
    await require_topics(bus, [BATCHES.name])
    async with aclosing(reader.to_end(bus, BATCHES.name)) as records:
        return [codec.decode(record.value, Batch) async for record in records if record.value]


async def _publish(tasks: Sequence[Task], *, quiet: bool) -> None:
    bus = BusSettings()
    await require_topics(bus, [TASKS.name])
    appender = await KafkaAppender.connect(bus, linger_ms=5)
    try:
        with counting(quiet=quiet) as bar:
            progress = bar.add_task("publishing", total=len(tasks))
            for at in range(0, len(tasks), AT_ONCE):
                part = tasks[at : at + AT_ONCE]
                await asyncio.gather(*(publish_task(appender, task) for task in part))
                bar.advance(progress, len(part))
    finally:
        await appender.aclose()
