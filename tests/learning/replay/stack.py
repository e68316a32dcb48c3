"""The same arms through the whole stack: the demo's project, with Kafka, proxy, hosts and an engine."""

import asyncio
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import click

from odradek.infra.app.demo.course import DemoAims, DemoCourse
from odradek.infra.app.demo.run import BEYOND, prepare, variables
from odradek.infra.app.project import load
from odradek.infra.app.session.session import guard, running
from tests.learning.replay.arms import ARMS, Arm
from tests.support.suite.results import Result, append, read

MOST_STEPS: Final = 400
TARGET: Final = 0.9
ANCHOR: Final = "max_staleness = 4"
"""A line of the trainer's section in the demo's project."""


def project_of(folder: Path, arm: Arm, seed: int) -> Path:
    """The demo's project with the settings of an arm, evaluated at every second version."""
    project = prepare(folder)
    trainer = arm.learning()
    lines = [
        ANCHOR,
        *(f"{name} = {trainer[name]}" for name in ("tis", "fresh_share") if name in trainer),
    ]
    path = project / "odradek.toml"
    text = path.read_text().replace(ANCHOR, "\n".join(lines)).replace("every = 5", "every = 2")
    if arm.sampler is not None:
        values = {**arm.sampler, "seed": seed}
        text += "\n[sampler]\n" + "".join(
            f"{name} = {value!r}\n".replace("'", '"') for name, value in values.items()
        )
    path.write_text(text)
    return project


async def learn(arm: Arm, seed: int) -> Result:
    """One run; fresh rollouts are those that had been played when greedy play was good enough."""
    began = time.monotonic()
    environment = {
        "ODRADEK_TRAINER_SEED": str(seed),
        "ODRADEK_ENGINE_SEED": str(seed),
        "ODRADEK_TRAINER_MAX_STEPS": str(MOST_STEPS + BEYOND),
    }
    with TemporaryDirectory() as place, variables(environment):
        project = load(project_of(Path(place), arm, seed))
        async with running(project, lambda _: None, keep=False, seed=seed) as session:
            course = DemoCourse(session, aims=DemoAims(target=TARGET, max_steps=MOST_STEPS))
            await guard(session, asyncio.create_task(course.learn()))
            greedy = [one for one in course.rounds if one.kind == "greedy"]
            first = next((one for one in greedy if one.success >= TARGET), None)
            played = session.tally.episodes_of("train")
            found: dict[str, Any] = {
                "arm": arm.name,
                "game": "stack",
                "seed": seed,
                "reached": greedy[-1].success >= TARGET,
                "fresh": first and sum(one.at <= first.at for one in played),
                "steps": session.tally.last_step,
                "rollouts": len(played),
                "staleness": session.tally.staleness(),
            }
    return found | {"wall_s": round(time.monotonic() - began, 1)}


@click.command()
@click.option("--results", default=Path("docs/figures/replay-learning-stack.jsonl"), show_default=True,
              type=click.Path(path_type=Path), help="A line for each run; those there are kept.")  # fmt: skip
@click.option("--arm", "arms", multiple=True, type=click.Choice(list(ARMS)),
              default=("on-policy", "fifo"), show_default=True, help="Which arms.")  # fmt: skip
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(1))
def main(results: Path, arms: tuple[str, ...], seeds: int) -> None:
    """Train the demo's game through the whole stack, with and without a sampler.

    `scripts/prove replay-learning` has many seeds without a broker; these few stand beside them. Fresh
    rollouts are those that had been played, so those on their way to the trainer are among them.
    """
    done = {(one["arm"], one["seed"]) for one in read(results)}
    for seed in range(seeds):
        for arm in arms:
            if (arm, seed) not in done:
                append(results, asyncio.run(learn(ARMS[arm], seed)))
                click.echo(read(results)[-1], err=True)
    for one in read(results):
        click.echo(f"{one['arm']} seed {one['seed']}: {one['fresh']} fresh, {one['steps']} steps")
    sys.exit(0 if all(one["reached"] for one in read(results)) else 1)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
