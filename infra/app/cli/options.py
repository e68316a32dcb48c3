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


def given(**options: Any) -> dict[str, Any]:
    """The options that were given, as keyword arguments of a settings class."""
    return {name: value for name, value in options.items() if value is not None}
