"""`scripts/prove replay-exact`: an asynchronous run under kills, replayed under kills, bit for bit."""

import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from odradek.infra.app.local_kafka import LocalBroker
from odradek.infra.bus import read_range
from odradek.infra.runtime.crash_points import POINTS
from odradek.schemas import codec
from odradek.schemas.events import Step
from odradek.schemas.topics import STEPS
from odradek.streams.history import CountSpan, Selection
from odradek.streams.replay import replay
from odradek.streams.verify.report import verify
from tests.chaos.kill_plan import Round, drawn_point
from tests.chaos.processes.fork_server import ForkServer
from tests.chaos.run import Run, make_model
from tests.chaos.verification.ledger_checks import line
from tests.chaos.workload import Workload
from tests.support.suite.results import append, read

KILLS: Final = 5
"""Of the run, and of its replay."""
OTHERS: Final = ("proxy", "agent-0", "agent-1", "assembler-0", "assembler-1", "grouper")
AGAIN: Final = "rl.batches.again"
ROWS: Final = 16
STALL_S: Final = 300.0
"""Two starts of a trainer in a row may take long where other work runs beside."""
SETTINGS: Final = {
    "ODRADEK_TRAINER_ROWS_PER_STEP": str(ROWS),
    "ODRADEK_TRAINER_LEARNING_RATE": "1e-3",
    "ODRADEK_TRAINER_KL": "0.1",
    "ODRADEK_TRAINER_TIS": "2",
    "ODRADEK_TRAINER_MAX_STALENESS": "2",
    "ODRADEK_DISPATCH_OPEN_GROUPS": "16",
}
"""Small steps, few groups out, and rows that grow too old: what is refused must be the same, too."""


@dataclass
class ExactWorkload(Workload):
    """Tasks of a run that is to be replayed."""

    @property
    def rows_per_step(self) -> int:
        """Rows of an optimizer step."""
        return ROWS


def kills_of(seed: int) -> tuple[Round, ...]:
    """Two kills of the trainer, by the clock and at a crash point, and three of other processes."""
    chance = random.Random(f"exact/{seed}")
    one, two = chance.sample(OTHERS, 2)
    victims = [("trainer", 1), (one, 1), (two, 0)]
    chance.shuffle(victims)
    shares = sorted(chance.uniform(0.05, 0.7) for _ in victims)
    return tuple(
        Round(
            name, share, chance.uniform(0, 1), tuple(drawn_point(chance, name) for _ in range(arms))
        )
        for (name, arms), share in zip(victims, shares, strict=True)
    )


def points_of(seed: int) -> list[str]:
    """Where the trainer of the replay dies: it has no engine, so one point is never passed."""
    chance = random.Random(f"exact/{seed}/replay")
    points = [point for point in POINTS["train"] if point != "reloaded_before_version"]
    return [f"{chance.choice(points)}:{chance.randint(1, 2)}" for _ in range(KILLS)]


class ExactRun(Run):
    """A run whose batches are trained on again before its topics are deleted."""

    forks: ForkServer

    async def _count(
        self, broke: str, codes: dict[str, int | None], started: float
    ) -> dict[str, Any]:
        """Replay it, and compare both ledgers step by step."""
        found: dict[str, Any] = {
            "seed": self.workload.seed,
            "kills": [f"{death.process} {death.point}".strip() for death in self.world.deaths],
            "run_s": round(time.monotonic() - started, 1),
        }
        dirty = {name: code for name, code in codes.items() if code != 0}
        if broke or dirty:
            return found | {"broke": broke or f"these did not end in order: {dirty}", "ok": False}
        report = await verify(self.bus)
        replayed = await replay(self.bus, Selection(steps=CountSpan(1, None)), AGAIN)
        codes_again = await asyncio.to_thread(self._train_again)
        steps = [step async for step in self._steps()]
        first, second = (
            line(step for step in steps if step.run == run) for run in ("main", "again")
        )
        refused = Counter(one.reason for step in first for one in step.refused)
        found |= {
            "broke": "",
            "closed": report.closed,
            "steps": len(first),
            "starts": max((step.incarnation for step in steps if step.run == "main"), default=0),
            "batches": replayed.batches,
            "refused": dict(refused),
            "stale_rows_used": sum(step.metrics.get("staleness_max", 0) > 0 for step in first),
            "replay_exits": codes_again,
            "digests_equal": [_used(step) for step in first] == [_used(step) for step in second],
            "weights_equal": [step.weights for step in first] == [step.weights for step in second],
            "weights": first[-1].weights if first else "",
            "wall_s": round(time.monotonic() - started, 1),
        }
        found["ok"] = bool(
            report.closed
            and first
            and first[-1].weights
            and found["digests_equal"]
            and found["weights_equal"]
            and len(found["kills"]) == KILLS
            and codes_again == [-9] * KILLS + [0]
        )
        return found

    def _train_again(self) -> list[int]:
        """The exit codes of a fresh trainer's starts on the replay, the last one left alone."""
        env = {
            **self.world.processes["trainer"].env,
            "ODRADEK_TRAINER_RUN": "again",
            "ODRADEK_TRAINER_OUTPUT_DIR": str(self.folder / "again"),
            "ODRADEK_TRAINER_BATCHES_TOPIC": AGAIN,
            "ODRADEK_TRAINER_REPLAY_OF": "main",
        }
        codes = []
        for point in (*points_of(self.workload.seed), ""):
            start = env | {"ODRADEK_CRASH_AT": point}
            codes.append(
                self.forks.start(["train", "--until-end"], start, self.folder / "again.log")
            )
        return codes

    async def _steps(self) -> Any:
        async for record in read_range(self.bus, STEPS.name, 0):
            yield codec.decode(record.value, Step)


def _used(step: Step) -> list[tuple[str, int]]:
    """The digests of a step's batches, and how many rows of each it used."""
    return [(use.digest, use.rows) for use in step.used]


@click.command()
@click.option("--seeds", default=20, show_default=True, type=click.IntRange(1))
@click.option("--first-seed", default=0, show_default=True)
@click.option("--episodes", default=320, show_default=True, type=click.IntRange(64))
@click.option("--results", default=Path("docs/figures/replay-exact.jsonl"), show_default=True,
              type=click.Path(path_type=Path), help="A line for each seed; those there are kept.")  # fmt: skip
@click.option("--keep", type=click.Path(path_type=Path), help="Folder of the logs; kept.")
def main(seeds: int, first_seed: int, episodes: int, results: Path, keep: Path | None) -> None:
    """Train asynchronously under kill -9, replay the batches under kill -9, and compare the weights.

    Each run has engines, dispatcher, hosts, proxy, intake, assemblers, grouper and trainer, of which
    five are killed, the trainer twice. Then its batches are written to a fresh topic, and a fresh
    trainer with the same seed, killed five times, trains on them. Each step's batch digests, rows
    and sha256 of the weights are compared. A rerun goes on behind the seeds that have a result. A run
    that broke, such as by a process that did not end within half a minute, is done again then.
    """
    folder = keep or Path(tempfile.mkdtemp(prefix="odradek-exact-"))
    folder.mkdir(parents=True, exist_ok=True)
    done = {one["seed"] for one in read(results) if not one["broke"]}
    wanted = [seed for seed in range(first_seed, first_seed + seeds) if seed not in done]
    if wanted:
        model = make_model(folder / "model")
        with LocalBroker() as broker, ForkServer() as forks:
            for seed in wanted:
                workload = ExactWorkload(
                    seed,
                    episodes,
                    KILLS,
                    model=model,
                    env=SETTINGS,
                    rounds=kills_of(seed),
                    stall_s=STALL_S,
                )
                run = ExactRun(
                    workload, broker.bootstrap_servers, folder / f"seed-{seed}", lambda *_: None
                )
                run.forks = forks
                found = asyncio.run(run.run())
                append(results, found)
                click.echo(
                    f"seed {seed}: {'equal' if found['ok'] else 'NOT EQUAL'}, "
                    f"{found.get('steps', 0)} steps, {found.get('wall_s', 0)} s {found['broke']}",
                    err=True,
                )
    last = {one["seed"]: one for one in read(results)}
    equal = sum(one["ok"] for one in last.values())
    click.echo(f"{equal} of {len(last)} seeds equal; logs in {folder}")
    sys.exit(0 if equal == len(last) else 1)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
