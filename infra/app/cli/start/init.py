"""`odradek init`: a new project, ready to run."""

import shlex
import shutil
from pathlib import Path
from typing import Final

import click

from odradek.infra.errors import ProjectError

TEMPLATE: Final = Path(__file__).parents[2] / "demo" / "project"
"""The demo's own project: one source for both."""


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def command(folder: Path) -> None:
    """Write a project into FOLDER: the hi-lo game of the demo, to be changed into yours.

    agent.py and player.py are two ways to write an agent, game.py what they play, rewards.py a
    reward, tasks.jsonl and eval.jsonl what is to be done, odradek.toml names it all.
    """
    names = write(folder)
    click.echo(f"{folder}: {', '.join(names)}")
    dashed = ("--",) if str(folder).startswith("-") else ()
    click.echo(f"next: {shlex.join(['cd', *dashed, str(folder)])} && odradek up")


def write(folder: Path) -> list[str]:
    """Copy the template; returns the names of its files.

    Raises ProjectError rather than write over a file.
    """
    names = sorted(path.name for path in TEMPLATE.iterdir() if path.is_file())
    existing = [name for name in names if (folder / name).exists()]
    if existing:
        raise ProjectError(f"{folder} holds {', '.join(existing)} already: choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.copyfile(TEMPLATE / name, folder / name)
    except OSError as error:
        raise ProjectError(f"cannot write {folder}: {error.strerror}") from error
    return names
