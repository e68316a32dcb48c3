"""`odradek rescore`: a reward function over history."""

import asyncio
import os

import click
import msgspec

from odradek.infra.app.cli.selection import ARCHIVE, archive_at


@click.command()
@click.option(
    "--reward", "function", required=True, metavar="MODULE:FUNCTION", help="The function."
)
@click.option(
    "--component",
    default="reward",
    show_default=True,
    metavar="NAME",
    help="The component that it judges.",
)
@click.option("--agent", default="", metavar="NAME", help="Only this agent's conversations.")
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Also conversations whose task does not ask for the component.",
)
@click.option(
    "--name",
    default="",
    metavar="NAME",
    help="Of this re-scoring; the function's if not given. The same name goes on where it stopped.",
)
@click.option("--again", is_flag=True, help="Begin anew, however far the name has come.")
@click.option(
    "--concurrency",
    type=click.IntRange(1),
    default=os.cpu_count() or 1,
    show_default="cores",
    help="Worker processes.",
)
@ARCHIVE
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def command(
    function: str,
    component: str,
    agent: str,
    everything: bool,
    name: str,
    again: bool,
    concurrency: int,
    location: str | None,
    as_json: bool,
) -> None:
    """Run a reward function over all completed conversations that there are.

    \b
    odradek rescore --reward rewards:brief --component brief
    odradek replay --batches 0: --revision latest --to rl.batches.brief

    Its verdicts are late rewards on rl.revisions.v1. Nothing is overwritten: the episodes and
    batches stand as they are, and who replays or trains chooses the rewards of which revision.
    Raising is a dead letter `reward_failed`, and the old reward stays. Stop it whenever you like:
    the same command goes on where it stopped. Once it is through, it only judges what is new;
    --again begins anew, such as after the function changed.
    """  # noqa: D301 - \b is click's sign for "do not wrap"
    from odradek.infra.app.cli.progress import counting
    from odradek.infra.bus import BusSettings
    from odradek.schemas.topics import NAME
    from odradek.streams.errors import RewardRefused
    from odradek.streams.judges.named import NamedJudge
    from odradek.streams.judges.rescore import VERDICTS, Rescored, RescoreFilter, rescore

    name = name or function.replace(":", "-").replace(".", "-")
    for what, text in (("component", component), ("re-scoring", name)):
        if not NAME.fullmatch(text):
            raise RewardRefused(
                f"{text!r} cannot name a {what}: use up to 63 letters, digits, - and _"
            )

    async def judge_all() -> tuple[Rescored, bool]:
        judge = NamedJudge(function, concurrency, verdicts=VERDICTS)
        try:
            await judge.start()
            with counting() as bar:
                task = bar.add_task("conversations", total=None)
                result = await rescore(
                    BusSettings(),
                    judge,
                    RescoreFilter(component, agent=agent, everything=everything),
                    name=name,
                    concurrency=concurrency,
                    again=again,
                    archive=archive_at(location),
                    moved=lambda done, of: bar.update(task, completed=done, total=of),
                )
        finally:
            await judge.aclose()
        return result, judge.stuck

    result, stuck = asyncio.run(judge_all())
    if as_json:
        click.echo(msgspec.json.encode(result))
    else:
        click.echo(
            f"{result.judged} conversations judged anew, {result.passed} left out, "
            f"{result.failed} without a number"
            + (": `odradek dlq list --reason reward_failed`" if result.failed else "")
        )
    if stuck:
        # All is told and committed. Python would wait for a function that cannot be cancelled.
        os._exit(0)
