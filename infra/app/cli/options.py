"""Options that verbs share, and those that are settings of a process."""

from pathlib import Path
from typing import Any, Final

import click

PROJECT: Final = click.option(
    "--project",
    "folder",
    type=click.Path(path_type=Path),
    default=Path(),
    help="The project's folder or its odradek.toml. Default: here.",
)
"""Which project a verb is about."""


class WholeSentences(click.Group):
    """A group whose help gives the first sentence of each command whole, however narrow it is."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands; click itself would cut their help to one line."""
        commands = [
            (name, command.get_short_help_str(limit=1000))
            for name in self.list_commands(ctx)
            if (command := self.get_command(ctx, name)) is not None
        ]
        with formatter.section("Commands"):
            formatter.write_dl(commands)


def given(**options: Any) -> dict[str, Any]:
    """The options that were given, as keyword arguments of a settings class."""
    return {name: value for name, value in options.items() if value is not None}
