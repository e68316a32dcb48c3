"""`odradek intake`: rewards join the story of their episode."""

import asyncio

import click

from odradek.infra.app.cli.options import given
from odradek.infra.app.cli.run.assemble import DRIVER, INSTANCE


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
    from odradek.infra.runtime.reward_signatures import JudgeSettings, Verifier
    from odradek.streams.process import run_stage
    from odradek.streams.settings import StreamsSettings
    from odradek.streams.stages.intake import intake

    verifier = Verifier.of(JudgeSettings())
    settings = StreamsSettings(**given(driver=driver, instance=instance))
    asyncio.run(run_stage(BusSettings(), intake(settings.sources, verifier), settings))
