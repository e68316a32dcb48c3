"""`odradek alarms`: what is wrong with a run, as rules for Prometheus."""

import asyncio

import click

from odradek.infra.app.metrics.alarms import ALARMS, Window, usual_step
from odradek.infra.app.metrics.rules import rules

LOOK_BACK = 200
"""Entries of the ledger by which the usual time of a step is found."""


@click.command()
@click.option("--prometheus", is_flag=True, help="Print a rule file for Prometheus.")
@click.option(
    "--step",
    "step_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Usual time of a step.  [default: the median of the run's last steps, from the ledger]",
)
@click.option(
    "--scrape",
    "scrape_s",
    type=click.FloatRange(min=0, min_open=True),
    default=15.0,
    show_default=True,
    metavar="SECONDS",
    help="Prometheus' scrape interval.",
)
@click.option("--run", default="main", show_default=True, help="Whose steps.")
def command(prometheus: bool, step_s: float | None, scrape_s: float, run: str) -> None:
    """List the alarms, or print them as rules for Prometheus.

    \b
    odradek alarms
    odradek alarms --prometheus > rules.yaml             # for the run's own pace
    odradek alarms --prometheus --step 90 > rules.yaml   # for a run that has not begun

    Windows are multiples of the usual time of a step. Where the log is, the variables of all
    processes say.
    """  # noqa: D301 - \b is click's sign for "do not wrap"
    if prometheus:
        usual = step_s or asyncio.run(_usual(run))
        click.echo(rules(Window(usual, scrape_s)), nl=False)
        return
    from rich.console import Console

    from odradek.infra.app.tables import ReadableTable

    cells = [(each.name, each.severity, each.about, each.advice) for each in ALARMS]
    Console().print(ReadableTable(("alarm", "severity", "what", "what to do"), cells))


async def _usual(run: str) -> float:
    from aiokafka import AIOKafkaConsumer, TopicPartition

    from odradek.infra.bus import BusSettings, Positions, at_beginning, at_end, to_end
    from odradek.schemas import codec
    from odradek.schemas.events import Step
    from odradek.schemas.topics import STEPS

    async def tail(reader: AIOKafkaConsumer, partitions: list[TopicPartition]) -> Positions:
        first, end = await at_beginning(reader, partitions), await at_end(reader, partitions)
        return {where: max(first[where], end[where] - LOOK_BACK) for where in partitions}

    times = []
    async for record in to_end(BusSettings(), STEPS.name, start=tail):
        step = codec.decode(record.value, Step)
        if step.run == run and (step.optimized or step.skipped):
            times.append(record.timestamp)
    usual = usual_step(times)
    if usual is None:
        raise click.UsageError(
            f"run {run!r} has made fewer than two steps: say with --step how long one will take"
        )
    return usual
