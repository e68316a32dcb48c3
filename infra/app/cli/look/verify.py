"""`odradek verify`: conservation, counted from the topics."""

import asyncio
import sys
from typing import Any, Final

import click
import msgspec

SHOWN: Final = 50
"""How many open ends are listed at most."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def command(as_json: bool) -> None:
    """Count conservation from the topics: nothing lost, nothing twice.

    Samples asked for = episodes in batches + exclusions; every GroupOpened has one batch, every
    EpisodeOpened one episode or dead letter, every acked turn one episode. For each run of a
    trainer: every batch is used once, or refused with its reason, in the line of checkpoints that
    led to its last policy, and no policy version was used twice. What does not close is listed with
    what to do next, and the exit code is 1. A run that is still going on has open ends: wait for
    it.
    """
    from odradek.infra.bus import BusSettings
    from odradek.streams.verify.report import verify

    report = asyncio.run(verify(BusSettings()))
    if as_json:
        click.echo(msgspec.json.encode(report.as_dict()))
    else:
        _show(report)
    if not report.closed:
        sys.exit(1)


def _show(report: object) -> None:
    from rich.console import Console

    from odradek.infra.app.tables import ReadableTable
    from odradek.streams.verify.report import Report

    assert isinstance(report, Report)
    train, evaluation = report.conservation, report.eval
    names = ("tasks", "batches", "samples", "episodes", "turns", "retries")
    cells = [(name, str(train[name]), str(evaluation[name])) for name in names]
    for reason in sorted({**train["exclusions"], **evaluation["exclusions"]}):
        counts = [str(each["exclusions"].get(reason, 0)) for each in (train, evaluation)]
        cells.append((f"excluded: {reason}", counts[0], counts[1]))
    if train["children"]["opened"] or evaluation["children"]["opened"]:
        for name in ("opened", "held", "refused", "turns"):
            counts = [str(each["children"][name]) for each in (train, evaluation)]
            cells.append((f"children: {name}", counts[0], counts[1]))
    console = Console()
    console.print(ReadableTable(("", "train", "eval"), cells))
    if report.imported:
        console.print(f"imported episodes, in no sum: {report.imported}")
    for reason, n in report.dead_letters.items():
        console.print(f"dead letters, {reason}: {n}")
    for run in report.trainers:
        console.print(_run_line(run), markup=False, highlight=False)
    lines = report.lines()
    for line in lines[:SHOWN]:
        console.print(line, markup=False)
    if len(lines) > SHOWN:
        console.print(f"and {len(lines) - SHOWN} more: `odradek verify --json` lists them all")
    for advice in report.advice():
        console.print(f"next, where it is {advice}", markup=False, highlight=False)
    console.print("closed" if report.closed else f"not closed: {len(lines)} open ends")


def _run_line(run: dict[str, Any]) -> str:
    """A trainer's run in one line."""
    refused = sum(run["refused"].values())
    reasons = ", ".join(f"{name} {n}" for name, n in run["refused"].items())
    beside = f" beside run {run['sampled_by']}, which leads" if run["sampled_by"] else ""
    return (
        f"run {run['run']}{beside}: {run['steps']} steps to version {run['version']} in "
        f"{run['starts']} starts ({run['steps_redone']} steps done again, "
        f"{run['steps_skipped']} skipped); {run['batches_used']} batches used, "
        f"{refused} refusals{f' ({reasons})' if reasons else ''}, {run['waiting']} waiting"
    )
