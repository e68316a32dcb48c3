"""`odradek config`: what holds, and where it came from."""

import json
from pathlib import Path
from typing import Any, Final

import click

from odradek.infra.app.cli.options import PROJECT
from odradek.infra.app.project import Project, load
from odradek.infra.app.project.reference import page
from odradek.infra.app.project.sections import KINDS

UNTRIED: Final = "never run on a card"
"""How the description of a setting says so."""


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
    for row in settings:
        if row["note"]:
            click.echo(f"{row['key']}: {row['note']}")


def rows(project: Project) -> list[dict[str, Any]]:
    """{key, value, from, note} of every setting, secrets masked."""
    settings = []
    for section, entries in project.entries.items():
        for at, entry in enumerate(entries):
            name = f"{section}[{at}]" if KINDS[section].many else section
            settings += [
                {
                    "key": f"{name}.{value.key}",
                    "value": value.shown,
                    "from": value.origin,
                    "note": _note(section, value.key),
                }
                for value in entry.values
            ]
    return settings


def _note(section: str, key: str) -> str:
    """What of a setting was never run on a card, as its own description says it, or ""."""
    settings = KINDS[section].settings()
    field = settings.model_fields.get(key) if settings else None
    sentences = " ".join(((field.description if field else "") or "").split()).split(". ")
    return next((text.rstrip(".") for text in sentences if UNTRIED in text.lower()), "")
