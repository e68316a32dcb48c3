"""Many runs, seeds x targets, one JSON line each; what was run before is not run again."""

import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odradek.infra.app.local_kafka import LocalBroker
from tests.chaos.verification.recovery_times import quantile, summary

LINES = "matrix.jsonl"
RUNS_PER_BROKER = 10
"""Topics that were deleted slow a broker down in the end."""


class OtherCommit(Exception):
    """Runs of two commits prove nothing together."""


@dataclass(frozen=True)
class Cell:
    """One run of the matrix."""

    targets: tuple[str, ...]
    seed: int
    episodes: int
    kills: int

    def named(self, line: dict[str, Any]) -> bool:
        """Whether a line is this run's."""
        told = (line["targets"], line["seed"], line["asked_episodes"], line["asked_kills"])
        return told == (list(self.targets), self.seed, self.episodes, self.kills)

    @property
    def folder(self) -> str:
        """Name of the folder of its logs."""
        return f"{'+'.join(self.targets)}-{self.seed}"


def cells(
    targets: tuple[str, ...], seeds: int, episodes: int, kills: int, *, together: bool = False
) -> list[Cell]:
    """Seed by seed, each with all targets, so that a matrix that was cut short is even.

    `kills` is of each target; `together` kills all targets within one run a seed.
    """
    if together:
        return [Cell(targets, seed, episodes, kills * len(targets)) for seed in range(seeds)]
    return [
        Cell((target,), 1000 * (at + 1) + seed, episodes, kills)
        for seed in range(seeds)
        for at, target in enumerate(targets)
    ]


def lines_of(folder: Path) -> list[dict[str, Any]]:
    """The runs that a folder holds."""
    path = folder / LINES
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def fill(
    folder: Path, wanted: list[Cell], run: Callable[[Cell, str, Path], dict[str, Any]]
) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """Run what is missing; logs of runs that failed stay in the folder.

    Raises OtherCommit where the folder holds, or would come to hold, runs of two commits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    there = lines_of(folder)
    ours = commit()
    if others := sorted({line["commit"] for line in there} - {ours}):
        raise OtherCommit(
            f"{folder} holds runs of {others[0]}, and this is {ours}: give --json another folder, "
            "or remove that one"
        )
    missing = [cell for cell in wanted if not any(cell.named(line) for line in there)]
    for first in range(0, len(missing), RUNS_PER_BROKER):
        with LocalBroker() as broker:
            for cell in missing[first : first + RUNS_PER_BROKER]:
                logs = folder / cell.folder
                shutil.rmtree(logs, ignore_errors=True)
                found = run(cell, broker.bootstrap_servers, logs)
                if (now := commit()) != ours:
                    raise OtherCommit(f"the code became {now} during a run of {ours}: run it again")
                found |= {
                    "asked_episodes": cell.episodes,
                    "asked_kills": cell.kills,
                    "commit": ours,
                }
                with (folder / LINES).open("a") as out:
                    out.write(json.dumps(found) + "\n")
                if found["ok"]:
                    shutil.rmtree(logs, ignore_errors=True)
                yield cell, found


def commit() -> str:
    """The commit that is checked out, with a plus sign where files differ from it."""
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
    )
    return told.stdout.strip() or "unknown"


def totals(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """All runs together. With 0 failures in n kills, the 95 % bound of their share is 3/n.

    Where a run failed there is no such bound.
    """
    kills = sum(line["kills"] for line in lines)
    failed = sum(not line["ok"] for line in lines)
    exclusions: Counter[str] = Counter()
    letters: Counter[str] = Counter()
    for line in lines:
        exclusions.update(line["exclusions"])
        letters.update(line["dead_letters"])
    return {
        "runs": len(lines),
        "commit": lines[0]["commit"] if lines else None,
        "failed": failed,
        "episodes": sum(line["episodes"] for line in lines),
        "kills": kills,
        "kills_in_transaction": sum(line["kills_in_transaction"] for line in lines),
        "lost": sum(len(line["lost"]) for line in lines),
        "duplicated": sum(len(line["duplicated"]) for line in lines),
        "wrong": sum(len(line["wrong"]) for line in lines),
        "bound_95": round(3 / kills, 5) if kills and not failed else None,
        **summary([death for line in lines for death in line["deaths"]]),
        "recovery_by_process_s": by_process(lines),
        "turns": sum(line["counts"].get("turns", 0) for line in lines),
        "exclusions": dict(exclusions),
        "dead_letters": dict(letters),
    }


def by_process(lines: list[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Recovery by process."""
    found: dict[str, list[float]] = {}
    for line in lines:
        for death in line["deaths"]:
            if death["recovery_s"] is not None:
                found.setdefault(death["process"], []).append(death["recovery_s"])
    return {
        name: {"p50": quantile(values, 0.5), "p99": quantile(values, 0.99), "n": len(values)}
        for name, values in sorted(found.items())
    }
