"""`odradek bench`: figures with the command that makes them."""

import importlib
import json
from pathlib import Path
from typing import Any, Final

import click

BENCHES: Final = {
    "proxy": "CPU of an acked turn, and the time that the proxy adds to a call.",
    "waiting": "Memory for each of many calls that wait at the proxy at once.",
    "streams": "Turns to batches through the broker, per second.",
    "a2a": "What Kafka adds to an A2A message; streams of many subscribers; an agent that is down.",
    "trainer": "Tokens per second, per turn, merged and as trees; a trainer's recovery.",
    "replay": "Draws of old batches beside TorchRL's; replay, search; what subscribers cost.",
    "levels": "Speed and memory of the trainer's levels.",
}
"""What can be measured; each is a module of `odradek.infra.app.bench` with `run(**options)`."""


class Benches(click.Group):
    """A group that imports a benchmark when it is called; its OPTIONS become the command's."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """All benchmarks."""
        return list(BENCHES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """One benchmark as a command."""
        if cmd_name not in BENCHES:
            return None
        name = f"odradek.infra.app.bench.{cmd_name}"
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            from odradek.infra.app.cli import needs

            if error.name == name:
                raise click.ClickException(f"there is no `bench {cmd_name}` here yet") from error
            raise click.ClickException(needs(error)) from error
        return click.Command(
            cmd_name,
            callback=_measures(module),
            params=[*getattr(module, "OPTIONS", ()), _json_option()],
            help=module.run.__doc__,
            short_help=BENCHES[cmd_name],
        )

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """List the benchmarks, importing none."""
        with formatter.section("Benchmarks"):
            formatter.write_dl(list(BENCHES.items()))


def _json_option() -> click.Option:
    return click.Option(
        ["--json", "json_file"],
        type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
        help="Write the figures there as JSON, every repeat among them; - for standard output.",
    )


def _measures(module: Any) -> Any:
    def measure(*, json_file: Path | None, **options: Any) -> None:
        from rich.console import Console

        from odradek.infra.app.bench.tables import show

        figures = module.run(**options)
        text = json.dumps(figures, indent=2)
        if str(json_file) == "-":
            click.echo(text)
            return
        if json_file is not None:
            json_file.write_text(text + "\n", encoding="utf-8")
        show(figures, Console())

    return measure


@click.group(cls=Benches)
def command() -> None:
    """Measure, on this machine, what the README's table of figures says.

    Prints tables of figures, which are medians of repeats; --json has every repeat beside them.
    """
