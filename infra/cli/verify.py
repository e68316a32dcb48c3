"""`odradek verify`: conservation, counted from the topics."""

import asyncio
import sys

import click
import msgspec


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def command(as_json: bool) -> None:
    """Count conservation from the topics: nothing lost, nothing twice.

    Samples asked for = episodes in batches + exclusions; every Expected has one batch, every
    Opened one episode or dead letter, every acked turn one episode. What does not close is
    listed, and the exit code is 1. A run that is still going on has open ends: wait for it.
    """
    from odradek.infra.bus import BusSettings
    from odradek.streams.verify import verify

    report = asyncio.run(verify(BusSettings()))
    if as_json:
        click.echo(msgspec.json.encode(report.as_dict()))
    else:
        _show(report)
    if not report.closed:
        sys.exit(1)


def _show(report: object) -> None:
    from rich.console import Console
    from rich.table import Table

    from odradek.streams.verify import Report

    assert isinstance(report, Report)
    table = Table(box=None, pad_edge=False)
    for title in ("", "train", "eval"):
        table.add_column(title, justify="left" if not title else "right")
    for name in ("tasks", "batches", "samples", "episodes", "turns", "retries"):
        table.add_row(name, str(report.conservation[name]), str(report.eval[name]))
    reasons = {**report.conservation["exclusions"], **report.eval["exclusions"]}
    for reason in sorted(reasons):
        table.add_row(
            f"excluded: {reason}",
            str(report.conservation["exclusions"].get(reason, 0)),
            str(report.eval["exclusions"].get(reason, 0)),
        )
    console = Console()
    console.print(table)
    for reason, n in report.dead_letters.items():
        console.print(f"dead letters, {reason}: {n}")
    for line in report.lines()[:50]:
        console.print(line, markup=False)
    console.print("closed" if report.closed else f"not closed: {len(report.lines())} open ends")
