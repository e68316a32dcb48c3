"""`odradek archive`: closed ranges of topics as Parquet, in a folder or an S3 store."""

import asyncio
import contextlib
import time
from functools import partial
from typing import TYPE_CHECKING

import click
import msgspec

from odradek.infra.app.cli.options import WholeSentences

if TYPE_CHECKING:
    from odradek.infra.archive import Archive
    from odradek.infra.archive.writer import ArchivedRun

PLACE = click.argument("location", metavar="[PLACE]", required=False)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")


@click.group(cls=WholeSentences)
def command() -> None:
    """Archive the topics that a replay reads, in a folder or an S3 store, and look after that.

    PLACE is a folder or s3://bucket/prefix; without it ODRADEK_ARCHIVE counts. Keys of an S3 store
    are ODRADEK_ARCHIVE_ACCESS_KEY and ODRADEK_ARCHIVE_SECRET_KEY, or AWS's own variables and files.
    """


@command.command()
@PLACE
@click.option(
    "--topic",
    "topics",
    multiple=True,
    metavar="NAME",
    help="Only this, such as a replay's; repeatable.  [default: all that a replay reads]",
)
@click.option("--follow", is_flag=True, help="Go on for ever.")
@click.option(
    "--every",
    default="15m",
    show_default=True,
    metavar="TIME",
    help="With --follow: how long between two looks at the log.",
)
@click.option("--dry-run", is_flag=True, help="Count what is missing or lost, and write nothing.")
@AS_JSON
def run(
    location: str | None,
    topics: tuple[str, ...],
    follow: bool,
    every: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Copy what is committed and not archived yet.

    \b
    odradek archive run s3://bucket/runs/main
    odradek archive run /mnt/archive --follow --every 1h

    An object holds one range of offsets of one partition, and appears whole or not at all. Stop or
    kill it whenever you like: the next run goes on behind what is there. If retention has deleted
    what was not archived yet, the offsets are named and the exit code is 1.
    """  # noqa: D301 - \b is click's sign for "do not wrap"
    from odradek.infra.app.cli.progress import counting
    from odradek.infra.archive.writer import Archiver
    from odradek.infra.bus import BusSettings
    from odradek.infra.client.times import parse_time
    from odradek.schemas.topics import TOPICS

    now = time.time()
    pause_s = now - parse_time(every, now)
    names = topics or tuple(row.name for row in TOPICS if row.archived)
    archiver = Archiver(BusSettings(), _archive(location), names)

    async def work() -> bool:
        from odradek.infra.archive.follow import runs
        from odradek.infra.runtime.process import cancelled_by_sigterm

        cancelled_by_sigterm()
        lost = False
        with counting(quiet=as_json) as bar:
            task = bar.add_task("offsets", total=None)
            ended = runs(
                archiver,
                partial(asyncio.sleep, pause_s) if follow else None,
                dry_run=dry_run,
                moved=lambda done, of: bar.update(task, completed=done, total=of),
            )
            async with contextlib.aclosing(ended):
                async for each in ended:
                    _say(each, as_json=as_json, quiet=follow)
                    lost = lost or bool(each.lost)
        return lost

    lost = False
    with contextlib.suppress(asyncio.CancelledError):  # SIGTERM: what is there is whole
        lost = asyncio.run(work())
    if lost:
        click.get_current_context().exit(1)


def _say(ended: "ArchivedRun", *, as_json: bool, quiet: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(ended))
        return
    for line in map(str, ended.lost):
        click.echo(line, err=True)
    if ended.lost:
        click.echo(
            f"{len(ended.lost)} ranges are lost for ever: retention was quicker. Archive more "
            "often, or keep the topics longer (`odradek topics plan`)",
            err=True,
        )
    if ended.absent:
        click.echo(f"not there: {', '.join(ended.absent)}", err=True)
    if ended.dry:
        click.echo(f"{ended.offsets} offsets would be archived")
    elif ended.objects or not quiet:
        click.echo(f"{ended.records} records archived in {ended.objects} objects")


@command.command("list")
@PLACE
@AS_JSON
def list_objects(location: str | None, as_json: bool) -> None:
    """List what is archived, by partition. The exit code is 1 if offsets are missing between."""
    from odradek.infra.archive.validation import hole_lines, listing

    partitions, _ = listing(_archive(location).store().sizes())
    if as_json:
        click.echo(msgspec.json.encode(partitions))
    else:
        from rich.console import Console

        from odradek.infra.app.tables import ReadableTable

        cells = [
            (f"{each.topic}/{each.partition}", f"{each.first} to {each.last}",
             f"{each.objects}", f"{each.bytes / 1e6:.3g}")
            for each in partitions
        ]  # fmt: skip
        Console().print(ReadableTable(("partition", "offsets", "objects", "MB"), cells))
    holes = hole_lines(partitions)
    for line in holes:
        click.echo(line, err=True)
    if holes:
        click.get_current_context().exit(1)


@command.command()
@PLACE
@AS_JSON
def verify(location: str | None, as_json: bool) -> None:
    """Read each object and hold it against its sha256. The exit code is 1 if something is amiss."""
    from odradek.infra.app.cli.progress import counting
    from odradek.infra.archive.validation import hole_lines, validated

    with counting(quiet=as_json) as bar:
        task = bar.add_task("objects", total=None)
        found = asyncio.run(
            validated(
                _archive(location),
                lambda done, of: bar.update(task, completed=done, total=of),
            )
        )
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        for line in (*found.damaged, *hole_lines(found.partitions)):
            click.echo(line, err=True)
        for path in found.unknown:
            click.echo(f"{path} is no object of an archive", err=True)
        objects = sum(each.objects for each in found.partitions)
        good = objects - len(found.damaged)
        click.echo(f"{good} of {objects} objects are whole, with {found.records} records")
    if not found.whole:
        click.get_current_context().exit(1)


def _archive(location: str | None) -> "Archive":
    """The archive that is named. Raises ArchiveRefused where none is."""
    from odradek.infra.app.cli.options import given
    from odradek.infra.archive import Archive, ArchiveSettings
    from odradek.infra.archive.store import store_of

    return Archive(partial(store_of, ArchiveSettings(**given(location=location))))
