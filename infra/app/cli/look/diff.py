"""`odradek diff`: the first difference between two steps, or two runs."""

import asyncio
from typing import TYPE_CHECKING

import click
import msgspec

from odradek.infra.app.cli.options import WholeSentences
from odradek.infra.app.cli.selection import ARCHIVE, archive_at

if TYPE_CHECKING:
    from odradek.infra.app.history.difference import Comparison
    from odradek.infra.archive import Archive

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")


@click.group(cls=WholeSentences)
def command() -> None:
    """Name the first difference between two steps, or two runs.

    Compared are settings of learning, batches by their digests, rows down to each token, and
    weights. The exit code is 0 if they are equal, and 1 if they differ.
    """


@command.command()
@click.argument("left", metavar="[RUN:]STEP")
@click.argument("right", metavar="[RUN:]STEP")
@ARCHIVE
@AS_JSON
def step(left: str, right: str, location: str | None, as_json: bool) -> None:
    """Compare what two steps were trained on; the run is `main` if none is named."""
    found = asyncio.run(_steps(_named(left), _named(right), archive_at(location)))
    _report(found, left, right, as_json=as_json)


@command.command()
@click.argument("left", metavar="RUN")
@click.argument("right", metavar="RUN")
@ARCHIVE
@AS_JSON
def run(left: str, right: str, location: str | None, as_json: bool) -> None:
    """Compare two runs step by step, such as a run and its replay."""
    found = asyncio.run(_runs(left, right, archive_at(location)))
    _report(found, left, right, as_json=as_json)


def _named(text: str) -> tuple[str, int]:
    run, _, number = text.rpartition(":")
    if not (number.isascii() and number.isdigit() and int(number)):
        raise click.UsageError(f"{text!r} names no step: write STEP or RUN:STEP, such as again:812")
    return run or "main", int(number)


async def _steps(
    left: tuple[str, int], right: tuple[str, int], archive: "Archive | None"
) -> "Comparison":
    from odradek.infra.app.history.difference import of_steps
    from odradek.infra.app.history.steps import LogHistory
    from odradek.infra.archive import looking_back
    from odradek.infra.bus import BusSettings

    async with looking_back(BusSettings(), archive) as lookup:
        views = [await LogHistory(lookup, run).step(number) for run, number in (left, right)]
    return of_steps(*views)


async def _runs(left: str, right: str, archive: "Archive | None") -> "Comparison":
    from odradek.infra.app.history.difference import of_runs
    from odradek.infra.app.history.steps import LogHistory
    from odradek.infra.archive import looking_back
    from odradek.infra.bus import BusSettings

    async with looking_back(BusSettings(), archive) as lookup:
        lines = [await LogHistory(lookup, name).line() for name in (left, right)]
    return of_runs(*lines)


def _report(found: "Comparison", left: str, right: str, *, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(found))
    elif found.difference is None:
        click.echo(f"{left} and {right} are equal in {found.compared} steps")
    else:
        first = found.difference
        click.echo(f"first difference: {first.path}")
        for name, value, at in (
            (left, first.left, first.left_at),
            (right, first.right, first.right_at),
        ):
            click.echo(f"  {name}: {value}" + (f"  ({at})" if at else ""))
        if found.compared > 1:
            click.echo(f"{found.compared - 1} steps before it are equal")
    if not found.equal:
        click.get_current_context().exit(1)
