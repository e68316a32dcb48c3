"""`odradek replay`: past batches, written again."""

import asyncio
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from odradek.infra.app.cli.selection import (
    ARCHIVE,
    SKIP_MISSING,
    SOURCE,
    archive_at,
    filters,
    selection_of,
)

if TYPE_CHECKING:
    from odradek.streams.history import Selection
    from odradek.streams.history.pace import Pace
    from odradek.streams.replay import Replayed

MOST_LINES: Final = 20
"""Batches that were left out and are listed; the others are counted."""


@click.command()
@filters
@click.option("--to", "to", required=True, metavar="TOPIC", help="Where to; made if missing.")
@SOURCE
@click.option(
    "--revision",
    default="used",
    show_default=True,
    metavar="WHICH",
    help="Rewards: those that --steps `used`, `first`, `latest`, or an offset on rl.revisions.v1.",
)
@click.option(
    "--pace",
    default="",
    metavar="RATE",
    help="Batches per second, or `recorded` for as far apart as they were.  [default: full speed]",
)
@click.option("--append", is_flag=True, help="Also to a topic that already holds batches.")
@SKIP_MISSING
@ARCHIVE
@click.option("--dry-run", is_flag=True, help="Count the batches, and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON, with each batch's digest.")
def command(
    to: str,
    source: str,
    revision: str,
    pace: str,
    append: bool,
    skip_missing: bool,
    location: str | None,
    dry_run: bool,
    as_json: bool,
    **words: Any,
) -> None:
    """Write a past run's batches again, to train on them once more.

    \b
    odradek replay --batches 0:40 --to rl.batches.again
    odradek replay --steps 800:813 --to rl.batches.again
    ODRADEK_TRAINER_BATCHES_TOPIC=rl.batches.again odradek train …

    Batches are pointers, so no token is copied. A fresh trainer on the new topic ends with the
    same batch digests and, on CPU with a fixed seed, with the same weights. All filters that are
    given must hold.
    """  # noqa: D301 - \b is click's sign for "do not wrap"
    from odradek.streams.history.pace import FULL_SPEED, Pace

    selection = selection_of(**words)
    if selection.is_empty:
        raise click.UsageError("say which batches: --batches, --steps, --since, --task, …")
    replayed = asyncio.run(
        _replay(
            selection,
            to,
            pace=Pace.parse(pace) if pace else FULL_SPEED,
            quiet=as_json,
            source=source,
            revision=revision,
            append=append,
            dry_run=dry_run,
            skip_missing=skip_missing,
            archive=archive_at(location),
        )
    )
    if as_json:
        click.echo(msgspec.json.encode(replayed))
        return
    for line in replayed.left_out[:MOST_LINES]:
        click.echo(f"left out: {line}", err=True)
    for line in lines(replayed, to):
        click.echo(line)


def lines(replayed: "Replayed", to: str) -> list[str]:
    """What a replay came to, for people."""
    counted = f"{replayed.batches} batches with {replayed.episodes} episodes"
    if replayed.dry:
        shown = [f"{counted} would be written to {to}; {replayed.read} batches were read"]
    else:
        shown = [f"{counted} are on {to}"]
    if replayed.revised:
        shown.append(f"{replayed.revised} of them have rewards that late ones changed")
    if replayed.left_out:
        shown.append(f"{len(replayed.left_out)} batches were left out: episodes of them are gone")
    return shown


async def _replay(
    selection: "Selection", to: str, *, quiet: bool, pace: "Pace", **options: Any
) -> "Replayed":
    from odradek.infra.app.cli.progress import counting
    from odradek.infra.bus import BusSettings
    from odradek.streams.replay import replay

    with counting(quiet=quiet) as bar:
        looking = bar.add_task("reading", total=None)
        writing = bar.add_task("writing", total=None, visible=False)
        return await replay(
            BusSettings(),
            selection,
            to,
            pace=pace,
            looking=lambda done, of: bar.update(looking, completed=done, total=of),
            writing=lambda done, of: bar.update(writing, completed=done, total=of, visible=True),
            **options,
        )
