"""`odradek config`: what holds, and where it came from."""

import json
from pathlib import Path
from typing import Any

import click

from odradek.infra.app.cli.options import PROJECT
from odradek.infra.app.project import Project, load
from odradek.infra.app.project.reference import page


@click.command()
@PROJECT
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
@click.option("--changed", is_flag=True, help="Only settings that somebody has set.")
@click.option("--reference", is_flag=True, help="Print the page of all settings and stop.")
def command(folder: Path, as_json: bool, changed: bool, reference: bool) -> None:
    """Print what a project's settings hold and where each came from.

    The environment wins over odradek.toml, and that over the defaults. Secrets are masked.
    """
    if reference:
        click.echo(page(), nl=False)
        return
    settings = [row for row in rows(load(folder)) if not changed or row["from"] != "default"]
    if as_json:
        click.echo(json.dumps(settings, indent=1))
        return
    from rich.console import Console

    from odradek.infra.app.tables import ReadableTable

    cells = [(row["key"], row["value"] or "-", row["from"]) for row in settings]
    Console().print(ReadableTable(("setting", "value", "from"), cells))


def rows(project: Project) -> list[dict[str, Any]]:
    """{key, value, from} of every setting, secrets masked."""
    settings = []
    for section, entries in project.entries.items():
        for at, entry in enumerate(entries):
            name = f"{section}[{at}]" if section in {"agents", "rewards"} else section
            settings += [
                {"key": f"{name}.{value.key}", "value": value.shown, "from": value.origin}
                for value in entry.values
            ]
    return settings
