"""`odradek export`: a run's steps to the tools that people watch runs with, and its model."""

import asyncio
import contextlib
from pathlib import Path
from typing import Final

import click

from odradek.infra.app.cli.look.export import data, model
from odradek.infra.app.cli.options import WholeSentences
from odradek.infra.app.exports import SINKS

__all__ = ["Exports", "command", "run"]

HOW: Final = """\
Subscribes to the trainer's ledger (rl.steps.v1) and writes each step once. It goes on where an
earlier export ended. Steps that a trainer did again after a crash take the place of the first ones.
docs/watch-a-run.md says what each metric means.
"""


class Exports(WholeSentences):
    """A group with a command for each line of `exports.SINKS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All sinks, then other commands of the group."""
        return [*SINKS, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One sink as a command."""
        if cmd_name not in SINKS:
            return super().get_command(ctx, cmd_name)
        return click.Command(
            cmd_name,
            callback=lambda **options: run(cmd_name, **options),
            params=_options(),
            help=f"{SINKS[cmd_name].about}\n\n{HOW}",
            short_help=SINKS[cmd_name].about,
        )


def _options() -> list[click.Parameter]:
    return [
        click.Option(["--run"], default="main", show_default=True, help="The run's name."),
        click.Option(
            ["--out"],
            type=click.Path(file_okay=False, path_type=Path),
            default=Path("runs/exports"),
            show_default=True,
            help="Folder of what is written, and of the file that says how far.",
        ),
        click.Option(
            ["--project"],
            default="odradek",
            show_default=True,
            help="Project or experiment, in tools that have such.",
        ),
        click.Option(
            ["--from-start"], is_flag=True, help="Write the run anew, from its first step."
        ),
        click.Option(
            ["--follow/--no-follow"],
            default=True,
            help="Go on for ever (default), or end where the ledger ends now.",
        ),
    ]


def run(name: str, *, run: str, out: Path, project: str, from_start: bool, follow: bool) -> None:
    """Export until the end, or a signal."""
    from odradek.infra.app.exports.sink import SinkOptions
    from odradek.infra.bus import BusSettings

    sinks = SINKS[name].load()
    options = SinkOptions(run=run, folder=out, project=project)

    async def work() -> None:
        from odradek.infra.app.exports.follow import export
        from odradek.infra.runtime.process import cancelled_by_sigterm

        cancelled_by_sigterm()
        state = await export(
            BusSettings(), sinks, options, name=name, from_start=from_start, follow=follow
        )
        click.echo(f"run {run}: {name} has it up to step {state.step}, in {out}")

    with contextlib.suppress(asyncio.CancelledError):  # SIGTERM: all is flushed
        asyncio.run(work())


@click.group(cls=Exports)
def command() -> None:
    """Export a run's steps to a tool, its episodes as a dataset, or a checkpoint's model."""


command.add_command(model.command)
command.add_command(data.command)
