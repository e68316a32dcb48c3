"""The verbs of the stages, one for each line of `streams.stages.STAGES`, and of the sampler."""

import asyncio
from typing import Any, Final, get_args

import click

from odradek.infra.app.cli.options import given
from odradek.streams.sampler.rules import Order
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


@click.command("sample")
@click.option("--fresh", type=click.IntRange(min=1), help="Fresh batches before old ones.  [4]")
@click.option("--replayed", type=click.IntRange(min=0), help="Old batches after them.  [4]")
@click.option(
    "--order",
    type=click.Choice(get_args(Order)),
    help="By what old ones are drawn.  [proportional]",
)
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the draws.  [0]")
def sample(fresh: int | None, replayed: int | None, order: str | None, seed: int | None) -> None:
    """Mix old batches into fresh ones: experience replay while a run goes on.

    Reads rl.batches.v1 and rl.steps.v1, and writes rl.mixed.v1: each fresh batch as it comes and,
    after every few of them, old ones that are drawn. A draw follows from the seed and from how far
    both topics were read, which each written batch says. A trainer reads it with
    ODRADEK_TRAINER_BATCHES_TOPIC=rl.mixed.v1. Run one process.

    Needs ODRADEK_KAFKA_BOOTSTRAP_SERVERS. ODRADEK_SAMPLER_* has the other settings.
    """
    from odradek.infra.bus import BusSettings
    from odradek.streams.process import serve
    from odradek.streams.sampler.process import SamplerProcess
    from odradek.streams.sampler.settings import SamplerSettings

    settings = SamplerSettings(**given(fresh=fresh, replayed=replayed, order=order, seed=seed))
    asyncio.run(serve(SamplerProcess(BusSettings(), settings.rules), "sampler"))
