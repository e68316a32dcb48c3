"""`odradek lag`: how far each process is behind."""

import asyncio
import contextlib
from typing import TYPE_CHECKING

import click
import msgspec

if TYPE_CHECKING:
    from odradek.infra.app.backlog import ProcessLag


@click.command()
@click.option("--exact", is_flag=True, help="Count records however many there are.")
@click.option(
    "--follow",
    type=click.FloatRange(min=0.1),
    metavar="SECONDS",
    help="Count again after so many seconds, for ever; as the metric odradek.lag as well.",
)
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON, with each partition.")
def command(exact: bool, follow: float | None, as_json: bool) -> None:
    """Say how many records each process has still to do.

    \b
    odradek lag
    odradek lag --follow 10
    odradek lag --json | jq '.processes[] | select(.process == "assembler").lag'

    Records are counted, not offsets: markers of transactions are no records, and what a process has
    done above its low-water mark is done. A process that has nothing to do is 0 behind.

    Processes need not run: what waits for a dispatcher, a stage, an agent's host or a trainer
    counts before its first start. A batch counts until the trainer's ledger calls it passed.

    Where more than 10,000 offsets of a partition are not read, they are not counted one by one:
    then ≤ says that there are no more records than that, and "exact" is false. --exact counts them.
    """  # noqa: D301 - \b is click's sign for "do not wrap"
    from odradek.infra.runtime.process import observed

    with observed("lag") if follow else contextlib.nullcontext():
        asyncio.run(_count(follow, exact=exact, as_json=as_json))


async def _count(follow: float | None, *, exact: bool, as_json: bool) -> None:
    from odradek.infra.app.backlog import BacklogCount, BacklogMetrics
    from odradek.infra.app.backlog.lag import NEAR
    from odradek.infra.bus import BusSettings

    shown = BacklogMetrics()
    async with BacklogCount.connect(BusSettings(), near=None if exact else NEAR) as count:
        while True:
            lags = await count.take()
            _show(lags, as_json=as_json)
            if not follow:
                return
            shown.show(lags)
            await asyncio.sleep(follow)


def _show(lags: "list[ProcessLag]", *, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode({"processes": lags}))
        return
    from rich.console import Console

    from odradek.infra.app.tables import ReadableTable

    cells = [(each.process, each.topic, each.shown) for each in lags]
    Console().print(ReadableTable(("process", "reads", "behind"), cells))
