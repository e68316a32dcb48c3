"""`odradek intake`: rewards join the story of their episode."""

import asyncio

import click

from odradek.infra.cli.assemble import DRIVER, INSTANCE
from odradek.infra.cli.options import given


@click.command()
@DRIVER
@INSTANCE
def command(driver: str | None, instance: str | None) -> None:
    """Run the intake: rewards of rl.rewards.v1 are checked and copied to rl.turns.v1.

    Who may judge what: ODRADEK_STREAMS_SOURCES='{"game": ["agent:*"]}' names, for a component,
    patterns of allowed sources. A component that is not named may be judged by anyone. A source's
    name is a claim: ODRADEK_JUDGE_KEYS='{"agent:*": "KEY"}' has its rewards signed.
    """
    from odradek.infra.bus import BusSettings
    from odradek.infra.signature import JudgeSettings, Verifier
    from odradek.streams.intake import intake
    from odradek.streams.process import run_stage
    from odradek.streams.settings import StreamsSettings

    verifier = Verifier.of(JudgeSettings())
    settings = StreamsSettings(**given(driver=driver, instance=instance))
    asyncio.run(run_stage(BusSettings(), intake(settings.sources, verifier), settings))
