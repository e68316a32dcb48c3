"""`scripts/prove chaos`: kill processes on a seeded schedule, then hold the log against the seed."""

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from odradek.infra.app.local_kafka import LocalBroker
from tests.chaos import matrix
from tests.chaos.kill_plan import PROCESSES
from tests.chaos.run import make_model, once, repeat
from tests.chaos.scenarios import fault_detection, faust_comparison, process_faults
from tests.chaos.scenarios.soak import soak as run_soak
from tests.chaos.workload import Workload

console = Console(stderr=True, soft_wrap=True)
ALL = ",".join(PROCESSES)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seed", type=int, default=0, show_default=True, help="Of tasks and schedule.")
@click.option("--episodes", type=click.IntRange(4), default=400, show_default=True)
@click.option("--kills", type=click.IntRange(0), default=4, show_default=True)
@click.option("--targets", default=ALL, show_default=True, help="Whose processes are killed.")
@click.option("--json", "out", type=click.Path(path_type=Path), help="Write the result there.")
@click.option("--keep", type=click.Path(path_type=Path), help="Folder of the logs; kept.")
@click.option(
    "--matrix",
    "many",
    is_flag=True,
    help="Each target by itself, with many seeds; --json names a folder, and what it holds "
    "already is not run again.",
)
@click.option(
    "--together", is_flag=True, help="Of --matrix: one run a seed, with --kills of each target."
)
@click.option("--seeds", type=click.IntRange(1), default=20, show_default=True, help="Of --matrix.")
@click.option(
    "--only", type=click.Choice([*process_faults.CASES, "R5", "R17"]), help="One case of the list."
)
@click.option(
    "--planted",
    type=click.Choice(list(fault_detection.PROOFS)),
    help="One fault of R17 and its control: the fault must be caught, the control clean.",
)
@click.option("--soak", help="So long a time of load, kills and pauses: 90s, 20m, 1h.")
def main(
    seed: int,
    episodes: int,
    kills: int,
    targets: str,
    out: Path | None,
    keep: Path | None,
    many: bool,
    together: bool,
    seeds: int,
    only: str | None,
    planted: str | None,
    soak: str | None,
) -> None:
    """Kill real processes on a real broker, and hold the log against what the seed asks for.

    \b
    scripts/prove chaos --seed 7 --episodes 2000 --kills 10 --targets proxy
    scripts/prove chaos --matrix --seeds 20 --targets proxy,agent,assemble,group,train \\
        --kills 10 --episodes 2000 --json runs/chaos

    Exit code 0: nothing lost, nothing twice, nothing wrong.
    """  # noqa: D301 - click's mark of a paragraph that is kept as it is
    chosen = tuple(one.strip() for one in targets.split(",") if one.strip())
    if unknown := sorted(set(chosen) - PROCESSES.keys()):
        raise click.BadParameter(f"no target {unknown[0]!r}; there are {ALL}", param_hint="targets")
    if many:
        wanted = matrix.cells(chosen, seeds, episodes, kills, together=together)
        sys.exit(fill(out or Path("runs/chaos"), wanted))
    if only == "R5":
        sys.exit(faust_comparison.compare(episodes, faust_comparison.TURNS_EACH, out))
    folder = keep or Path(tempfile.mkdtemp(prefix="odradek-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    model = make_model(folder / "model")
    if soak:
        sys.exit(case("soak", folder, model, seed, _seconds(soak), out))
    if only == "R17" or planted:
        sys.exit(prove(planted, folder, model, seed, episodes, out))
    if only:
        sys.exit(case(only, folder, model, seed, episodes, out))
    with LocalBroker() as broker:
        workload = Workload(seed, episodes, kills, chosen, model)
        found = one(workload, broker.bootstrap_servers, folder / f"seed-{seed}")
    if out is not None:
        out.write_text(json.dumps(found, indent=1) + "\n")
    show(found)
    if not found["ok"]:
        console.print(f"[red]failed[/]: logs in {folder}\nrepeat: {repeat(workload)}")
    sys.exit(0 if found["ok"] else 1)


def case(only: str, folder: Path, model: Path, seed: int, episodes: int, out: Path | None) -> int:
    """One case; returns the exit code."""
    logs = folder / only
    with LocalBroker() as broker, console.status(only):
        run = {**process_faults.CASES, "soak": run_soak}[only]
        found = asyncio.run(run(broker.bootstrap_servers, logs, model, seed, episodes))
    if out is not None:
        out.write_text(json.dumps(found, indent=1) + "\n")
    show(found)
    if not found["ok"]:
        console.print(f"failed: logs in {logs}")
        what = f"--soak {episodes}s" if only == "soak" else f"--only {only} --episodes {episodes}"
        console.print(f"repeat: scripts/prove chaos {what} --seed {seed}")
    return 0 if found["ok"] else 1


def _seconds(text: str) -> int:
    """A time as people write it."""
    units = {"s": 1, "m": 60, "h": 3600}
    try:
        return round(float(text[:-1]) * units[text[-1]])
    except (KeyError, ValueError, IndexError):
        raise click.BadParameter("write 90s, 20m or 1h", param_hint="--soak") from None


def prove(
    fault: str | None, folder: Path, model: Path, seed: int, episodes: int, out: Path | None
) -> int:
    """R17: every planted fault must be caught by a check named for it, every control be clean."""
    told = []
    with LocalBroker() as broker:
        for one in (fault,) if fault else fault_detection.PROOFS:
            with console.status(one):
                told.append(
                    asyncio.run(
                        fault_detection.prove(
                            one, broker.bootstrap_servers, folder / one, model, seed, episodes
                        )
                    )
                )
            _say_proof(told[-1])
    if not fault:
        told.append(fault_detection.prove_fsync())
        _say_proof(told[-1])
    if out is not None:
        out.write_text(json.dumps(told, indent=1) + "\n")
    if all(one["ok"] for one in told):
        return 0
    console.print(f"failed: logs in {folder}")
    return 1


def _say_proof(one: dict[str, Any]) -> None:
    how = f"caught by {', '.join(one['caught_by'])}" if one["caught_by"] else "NOT CAUGHT"
    control = "control clean" if one["control_ok"] else "CONTROL NOT CLEAN"
    console.print(f"{one['fault']}: {how} (also: {', '.join(one['also']) or 'nothing'}); {control}")
    for plant, found in one.get("runs", {}).items():
        if not found["ok"] and (plant == fault_detection.NONE or not one["ok"]):
            console.print(f"[bold]{plant}[/]")
            show(found)


def fill(folder: Path, wanted: list[matrix.Cell]) -> int:
    """The matrix; returns the exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    model = make_model(folder / "model")

    def run(cell: matrix.Cell, servers: str, logs: Path) -> dict[str, Any]:
        workload = Workload(cell.seed, cell.episodes, cell.kills, cell.targets, model)
        return one(workload, servers, logs)

    try:
        for cell, found in matrix.fill(folder, wanted, run):
            show(found)
            if not found["ok"]:
                workload = Workload(cell.seed, cell.episodes, cell.kills, cell.targets)
                console.print(f"failed: logs in {folder / cell.folder}")
                console.print(f"repeat: {repeat(workload)}")
    except matrix.OtherCommit as error:
        console.print(f"[red]{error}[/]")
        return 2
    lines = [line for line in matrix.lines_of(folder) if any(cell.named(line) for cell in wanted)]
    told = matrix.totals(lines)
    (folder / "totals.json").write_text(json.dumps(told, indent=1) + "\n")
    console.print_json(json.dumps(told))
    console.print(
        f"{told['kills']} kills, {told['lost']} lost, {told['duplicated']} twice, "
        f"{told['failed']} runs failed; 95 % bound a kill: {told['bound_95'] or 'none'}"
    )
    return 1 if told["failed"] else 0


def one(workload: Workload, servers: str, folder: Path) -> dict[str, Any]:
    """One run under a progress bar."""
    with Progress(
        TextColumn("seed {task.fields[seed]} {task.fields[targets]}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} tasks, {task.fields[kills]} kills"),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        bar = progress.add_task(
            "run",
            total=len(workload.tasks),
            seed=workload.seed,
            kills=0,
            targets=",".join(workload.targets),
        )
        return asyncio.run(
            once(
                workload,
                servers,
                folder,
                lambda done, _, kills: progress.update(bar, completed=done, kills=kills),
            )
        )


def show(found: dict[str, Any]) -> None:
    """A result for people."""
    told = {name: found[name] for name in ("lost", "duplicated", "wrong")}
    console.print(
        f"{found['episodes']} episodes, {found['kills']} kills "
        f"({found['kills_in_transaction']} in a transaction): "
        + ", ".join(f"{len(lines)} {name}" for name, lines in told.items())
        + f"; recovery p50 {found['recovery_s']['p50']} s, p99 {found['recovery_s']['p99']} s, "
        f"of the trainer p50 {found['trainer_recovery_s']['p50']} s; "
        f"load {found['load_s']} s, in all {found['wall_s']} s"
    )
    for name, lines in told.items():
        for line in lines[:10]:
            console.print(f"  {name}: {line}", markup=False)
    if found["broke"]:
        console.print(f"  broke: {found['broke']}", markup=False)
    for name in (
        "checks",
        "exclusions",
        "dead_letters",
        "unasked_ends",
        "zombies",
        "pause_s",
        "flat",
    ):
        if found.get(name):
            console.print(f"  {name}: {found[name]}", markup=False)


if __name__ == "__main__":
    main(prog_name="scripts/prove chaos")
