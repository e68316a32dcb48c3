"""`odradek reward`: a reward function as a service."""

import asyncio
import os

import click


@click.command()
@click.argument("function", metavar="MODULE:FUNCTION")
@click.option("--component", required=True, metavar="NAME", help="The component it judges.")
@click.option("--agent", default="", metavar="NAME", help="Only this agent's conversations.")
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Also conversations whose task does not ask for the component, or that failed.",
)
@click.option("--concurrency", type=click.IntRange(1), help="Conversations judged at once.")
def command(
    function: str, component: str, agent: str, everything: bool, concurrency: int | None
) -> None:
    """Run a reward function over conversations.

    \b
    # rewards.py
    def brief(conversation):
        return 1.0 if len(conversation.replies[-1].text) < 20 else 0.0

    \b
    odradek reward rewards:brief --component brief

    The function gets an odradek.schemas.Conversation and returns a number. It runs in a process of
    its own, up to --concurrency of them, for two minutes at most; an async one runs in the service.
    Raising is an error event (a dead letter `reward_failed`), not a zero. Start as many as you
    like: they share the work.
    """  # noqa: D301 - \b is click's sign for "do not wrap"
    from odradek.infra.bus import BusSettings
    from odradek.schemas.topics import NAME
    from odradek.streams.errors import RewardRefused
    from odradek.streams.judges.named import NamedJudge
    from odradek.streams.process import serve
    from odradek.streams.reward_service import RewardService
    from odradek.streams.settings import StreamsSettings

    if not NAME.fullmatch(component):
        raise RewardRefused(
            f"{component!r} cannot name a component: use up to 63 letters, digits, - and _"
        )
    settings = StreamsSettings()
    limit = concurrency or settings.concurrency

    async def judge_all() -> None:
        judge = NamedJudge(function, limit)
        service = RewardService(
            BusSettings(), judge, component, agent=agent, everything=everything, concurrency=limit
        )
        await serve(service, f"reward-{component}")
        if judge.stuck:
            # All is told and committed. Python would wait for a function that cannot be cancelled.
            os._exit(0)

    asyncio.run(judge_all())
