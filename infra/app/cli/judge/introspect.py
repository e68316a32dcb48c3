"""`odradek introspect`: how an agent plays, by its records."""

import asyncio
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from odradek.infra.app.cli.selection import (
    ARCHIVE,
    SKIP_MISSING,
    SOURCE,
    archive_at,
    filters_of_agent,
    selection_of,
)

if TYPE_CHECKING:
    from odradek.infra.app.introspection.report import AgentReport
    from odradek.infra.archive import Archive
    from odradek.streams.history import Selection

TIMES: Final = ("since", "until")
SEVERAL: Final = {"task": "tasks", "item": "items"}
"""Filters that may be given again, and their parameters."""
AGAINST: Final = ("batches", "steps", "run", "versions", "reward", *TIMES, *SEVERAL)


@click.command()
@click.argument("agent")
@filters_of_agent
@SOURCE
@click.option(
    "--purpose",
    type=click.Choice(["train", "eval"]),
    help="Only of training tasks, or of an evaluation's.",
)
@click.option(
    "--against",
    "against",
    multiple=True,
    metavar="FILTER=VALUE",
    help="Beside it, the same with this filter in place of its own, such as versions=1:3 or "
    "until=2h; may be repeated.",
)
@click.option(
    "--success",
    "threshold",
    type=float,
    default=1.0,
    show_default=True,
    help="The least reward of a success.",
)
@click.option("--component", default="", metavar="NAME", help="Whose value is held against it.")
@SKIP_MISSING
@ARCHIVE
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a page that needs nothing beside itself.",
)
def command(
    agent: str,
    source: str,
    purpose: str | None,
    against: tuple[str, ...],
    threshold: float,
    component: str,
    skip_missing: bool,
    location: str | None,
    as_json: bool,
    html: Path | None,
    **words: Any,
) -> None:
    """Show how AGENT plays: times, success, errors, tools, tokens, and what to mend.

    \b
    odradek introspect hilo --since 1h
    odradek introspect hilo --versions 20: --against versions=1:3
    odradek introspect hilo --since 1d --against since=2d --against until=1d

    Filters are those of `odradek replay`. Without --batches, --steps and --from all episodes that
    pass are meant, also those in no batch. A time given with --against replaces both times.

    A suggestion is raised by a rule, and names the episodes and turns that show it; `odradek show
    episode PLACE` and `odradek show turn PLACE` show them.
    """  # noqa: D301 - \b is click's sign for "do not wrap"
    if math.isnan(threshold):
        raise click.UsageError("--success needs a number")
    where = {"source": source, "skip_missing": skip_missing}
    chosen = [words] if not against else [words, replaced(words, against)]
    selections = [
        msgspec.structs.replace(selection_of(**each), purpose=purpose or "") for each in chosen
    ]
    reports = _reports(agent, selections, archive_at(location), threshold, component, **where)
    _show(reports[0], reports[1] if against else None, as_json=as_json, html=html)


def replaced(words: dict[str, Any], against: tuple[str, ...]) -> dict[str, Any]:
    """The filters of the other side: those that it names replace the same ones of this side.

    Raises UsageError for what names no filter.
    """
    other = dict(words)
    given: dict[str, list[str]] = {}
    for text in against:
        name, equals, value = text.partition("=")
        if not equals or not value or name not in AGAINST:
            raise click.UsageError(
                f"--against {text!r} is no filter: write FILTER=VALUE, where FILTER is one of "
                f"{', '.join(AGAINST)}"
            )
        given.setdefault(name, []).append(value)
    if any(name in given for name in TIMES):
        other |= dict.fromkeys(TIMES, "")
    for name, values in given.items():
        if name in SEVERAL:
            other[SEVERAL[name]] = tuple(values)
        elif len(values) > 1:
            raise click.UsageError(f"--against {name} is given twice: give one of them")
        else:
            other[name] = values[0]
    return other


def _reports(
    agent: str,
    selections: "list[Selection]",
    archive: "Archive | None",
    threshold: float,
    component: str,
    **where: Any,
) -> "list[AgentReport]":
    from odradek.infra.app.cli.progress import counting
    from odradek.infra.app.introspection.reader import agent_episodes
    from odradek.infra.app.introspection.stats import introspect
    from odradek.infra.bus import BusSettings

    async def read() -> "list[AgentReport]":
        reports = []
        with counting() as bar:
            task = bar.add_task("records", total=None)
            for selection in selections:
                episodes = await agent_episodes(
                    BusSettings(),
                    agent,
                    selection,
                    archive=archive,
                    progress=lambda done, of: bar.update(task, completed=done, total=of),
                    **where,
                )
                reports.append(
                    introspect(agent, episodes, threshold=threshold, component=component)
                )
        return reports

    return asyncio.run(read())


def _show(
    report: "AgentReport", other: "AgentReport | None", *, as_json: bool, html: Path | None
) -> None:
    from odradek.infra.app.introspection.difference import figures, held_against
    from odradek.infra.app.introspection.sections import sections_of_report

    if other is not None:
        report = held_against(report, other)
    if as_json:
        beside = {} if other is None else {"against": other, "figures": figures(report, other)}
        click.echo(msgspec.json.encode({"report": report, **beside}))
    if html is not None:
        from odradek.infra.app.history.page import page_of

        title = f"How {report.agent} plays"
        page = page_of(sections_of_report(report, other), title)
        html.write_text(page, encoding="utf-8")
        click.echo(f"{html}: {title}", err=as_json)
    if as_json or html is not None:
        return
    from rich.console import Console

    from odradek.infra.app.history.text import rendered

    console = Console(soft_wrap=False, highlight=False)
    console.print(rendered(sections_of_report(report, other), marked=False))
