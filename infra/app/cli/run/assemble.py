"""`odradek assemble`: turns and rewards become conversations and episodes."""

import asyncio

import click

from odradek.infra.app.cli.options import given

DRIVER = click.option(
    "--driver",
    type=click.Choice(["kafka", "faust"]),
    help="What carries the stage: Kafka transactions (default) or Faust (at least once).",
)

INSTANCE = click.option(
    "--instance",
    help="A name of this replica that outlives restarts, so that it comes back to its partitions.",
)


@click.command()
@DRIVER
@INSTANCE
def command(driver: str | None, instance: str | None) -> None:
    """Run the assembler: rl.turns.v1 becomes rl.conversations.v1 and rl.episodes.v1.

    Start as many as you like: they share the partitions. One that dies is taken over after the
    session timeout (6 s), and the new owner folds again from the oldest open episode. With an
    --instance of its own, it comes back to its partitions at once when it is restarted.

    Time reaches it through the log: it appends a Tick where something is overdue. Settings:
    ODRADEK_STREAMS_*, Kafka: ODRADEK_KAFKA_*.
    """
    from odradek.infra.bus import BusSettings
    from odradek.streams.process import run_stage
    from odradek.streams.settings import StreamsSettings
    from odradek.streams.stages.assembler import ASSEMBLE

    settings = StreamsSettings(**given(driver=driver, instance=instance))
    asyncio.run(run_stage(BusSettings(), ASSEMBLE, settings))
