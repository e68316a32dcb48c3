"""`scripts/prove simulate`: try seeds until told to stop; say how to repeat what fails."""

import json
import sys
import time
from contextlib import suppress
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.simulation.planted import PLANTED, finding
from tests.simulation.trial import Verdict, attempt, attempts, cores, shrink

console = Console(stderr=True)


@click.command()
@click.option("--seeds", type=click.IntRange(1), help="How many seeds.  [default: 300]")
@click.option("--from", "start", type=click.IntRange(0), default=0, help="The first seed.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="Stop after this long.")
@click.option("--jobs", type=click.IntRange(1), default=1, help="Processes to use.")
@click.option("--planted", type=click.Choice(sorted(PLANTED)), help="Plant this fault first.")
@click.option("--only", help="With one seed: apply only these faults, such as 3,7.")
@click.option("--keep-going", is_flag=True, help="Do not stop at the first failure.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the figures here.")
def main(
    seeds: int | None,
    start: int,
    minutes: float | None,
    jobs: int,
    planted: str | None,
    only: str | None,
    keep_going: bool,
    path: Path | None,
) -> None:
    """Run the real drivers, dispatcher, folds and the trainer's position on a simulated Kafka.

    Every seed is a world of its own: two or three workers of each stage, two dispatchers and a
    trainer, with kills, freezes, rebalances, lost answers, outages and wrong clocks. After each the
    logs are judged. Exit code 1 if a seed fails; the command that repeats it is printed.

    \b
      scripts/prove simulate --seeds 1000 --jobs 2
      scripts/prove simulate --minutes 60 --jobs 2 --json simulation.json
      scripts/prove simulate --from 4711 --seeds 1
      scripts/prove simulate --planted fsync-dropped
    """  # noqa: D301 - click's mark of a paragraph that is kept as it is
    sys.unraisablehook = lambda _: None  # a world that is cut short leaves coroutines behind
    plant = planted or ""
    if only is not None:
        _tell(attempt(start, plant, tuple(int(one) for one in only.split(",") if one)), plant)
        return
    if seeds is None and minutes is None:
        seeds = 300
    began = time.monotonic()
    failed: list[Verdict] = []
    sums = dict.fromkeys(("seeds", "kills", "records", "episodes", "steps"), 0)
    with (
        suppress(KeyboardInterrupt),
        Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        ) as progress,
    ):
        bar = progress.add_task("simulating", total=seeds)
        for verdict in attempts(start, jobs=min(jobs, cores()), plant=plant, seeds=seeds):
            sums["seeds"] += 1
            for name in ("kills", "records", "episodes", "steps"):
                sums[name] += getattr(verdict, name)
            progress.advance(bar)
            if (plant and finding(plant, verdict.failures)) or (not plant and verdict.failures):
                failed.append(verdict)
                if not keep_going:
                    break
                console.print(
                    f"seed {verdict.seed}: {str(verdict.failures[0])[:200]}", markup=False
                )
            if minutes is not None and time.monotonic() - began > minutes * 60:
                break
    elapsed = time.monotonic() - began
    figures = {
        **sums,
        "planted": plant,
        "from": start,
        "failed": sorted(verdict.seed for verdict in failed),
        "bound_95": 3 / max(sums["seeds"], 1) if not failed else None,
        "elapsed_s": round(elapsed, 1),
        "seeds_per_minute": round(sums["seeds"] / elapsed * 60, 1),
        "jobs": jobs,
    }
    if path is not None:
        path.write_text(json.dumps(figures, indent=2) + "\n")
    click.echo(
        f"{sums['seeds']} seeds in {elapsed:.0f} s ({figures['seeds_per_minute']} a minute): "
        f"{sums['episodes']} episodes, {sums['kills']} kills, {sums['records']} records, "
        f"{len(failed)} failed"
        + ("" if failed else f"; 95 % bound {figures['bound_95']:.2g} of seeds")
    )
    if failed:
        _tell(shrink(failed[0], plant), plant)
        raise SystemExit(1)


def _tell(verdict: Verdict, plant: str) -> None:
    """What failed, after which faults, and how to see it again."""
    for line in verdict.trace:
        click.echo(f"  {line}")
    for failure in verdict.failures or ("nothing failed",):
        click.echo(f"seed {verdict.seed}: {failure}")
    more = f" --planted {plant}" if plant else ""
    click.echo(f"repeat: scripts/prove simulate --from {verdict.seed} --seeds 1{more}")
    kept = ",".join(str(number) for number in verdict.faults)
    click.echo(f"shrunk: scripts/prove simulate --from {verdict.seed} --only '{kept}'{more}")


if __name__ == "__main__":
    main(prog_name="scripts/prove simulate")
