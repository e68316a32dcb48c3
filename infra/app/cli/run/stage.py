"""The verbs of the stages, one for each line of `streams.stages.STAGES`."""

import asyncio
from typing import Any, Final

import click

from odradek.infra.app.cli.options import given
from odradek.streams.stages import STAGES

OPTIONS: Final = (
    click.Option(
        ["--driver"],
        type=click.Choice(["kafka", "faust"]),
        help="What carries the stage: Kafka transactions (default) or Faust (at least once).",
    ),
    click.Option(
        ["--instance"],
        help="A name of this replica that outlives restarts, so that it comes back to its "
        "partitions.",
    ),
)


def __getattr__(verb: str) -> click.Command:
    """The command of a verb."""
    if verb not in STAGES:
        raise AttributeError(f"there is no stage {verb!r}")
    return click.Command(
        verb,
        params=list(OPTIONS),
        callback=lambda **options: run(verb, **options),
        help=STAGES[verb].help(),
    )


def run(verb: str, **options: Any) -> None:
    """Run a stage until a signal."""
    from odradek.infra.bus import BusSettings
    from odradek.streams.process import run_stage
    from odradek.streams.settings import StreamsSettings
    from odradek.streams.stage import Stage

    settings = StreamsSettings(**given(**options))
    stage = STAGES[verb].load()
    if not isinstance(stage, Stage):
        stage = stage(settings)
    asyncio.run(run_stage(BusSettings(), stage, settings))
