"""`odradek group`: episodes become batches."""

import asyncio

import click

from odradek.infra.app.cli.options import given
from odradek.infra.app.cli.run.assemble import DRIVER, INSTANCE


@click.command()
@DRIVER
@INSTANCE
def command(driver: str | None, instance: str | None) -> None:
    """Run the grouper: rl.episodes.v1 becomes rl.batches.v1, one batch for each task.

    A batch is written when every sample of the task has ended, or when the group's deadline has
    passed. It holds pointers to episodes, and a reason for each sample that is left out.

    With --driver faust a batch can be written twice after a crash; prefer kafka here.
    """
    from odradek.infra.bus import BusSettings
    from odradek.streams.process import run_stage
    from odradek.streams.settings import StreamsSettings
    from odradek.streams.stages.grouper import GROUP

    settings = StreamsSettings(**given(driver=driver, instance=instance))
    asyncio.run(run_stage(BusSettings(), GROUP, settings))
