"""`odradek demo`: watch a small model learn through the log."""

import asyncio
import json
import sys
from pathlib import Path

import click
from rich.console import Console


@click.command()
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path),
              help="Write the figures to this file.")  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="Seed of the model and of its sampling.")
@click.option("--max-steps", type=click.IntRange(min=1), default=300, show_default=True,
              help="Give up after so many optimizer steps.")  # fmt: skip
@click.option("--target", type=click.FloatRange(0, 1), default=0.9, show_default=True,
              help="Greedy success at which training stops.")  # fmt: skip
@click.option("--kill", multiple=True, metavar="PROCESS",
              help="Kill this process by kill -9 once on the way; may be given again.")  # fmt: skip
@click.option("--driver", type=click.Choice(["kafka", "faust"]), default="kafka",
              show_default=True, help="What drives assembler and grouper.")  # fmt: skip
@click.option("--game", type=click.Choice(["hilo", "pairs"]), default="hilo", show_default=True,
              help="hilo: one agent; pairs: one that asks another, on one policy.")  # fmt: skip
@click.option("--trainers", default="", metavar="LOSS,LOSS",
              help="Losses of trainers on the same batches, such as grpo,gspo: the first one's "
              "leads, and one plot compares them.")  # fmt: skip
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("report"),
              show_default=True, help="Where report and project go.")  # fmt: skip
def command(
    json_file: Path | None,
    seed: int,
    max_steps: int,
    target: float,
    kill: tuple[str, ...],
    driver: str,
    game: str,
    trainers: str,
    out: Path,
) -> None:
    """Run the bundled game end to end: Kafka, agents, proxy, streams, trainer, engine.

    A tiny model learns to find a number from 1 to 3 with two guesses and one hint. With --game
    pairs the hint is another agent's, rewarded for saying the truth. Exit code 0
    means: greedy success reached the target, and every task, sample, turn and episode is
    accounted for. The report stands in report/index.html.
    """
    from odradek.infra.app.demo.course import DemoAims
    from odradek.infra.app.demo.outcome import succeeded
    from odradek.infra.app.demo.run import DemoOptions, demo

    losses = tuple(name.strip() for name in trainers.split(",") if name.strip())
    if losses and game != "hilo":
        raise click.UsageError(f"--trainers plays with the game hilo, and --game is {game}")
    if len(set(losses)) < len(losses):
        raise click.UsageError(f"--trainers names a loss twice: {trainers}")
    options = DemoOptions(
        aims=DemoAims(target=target, max_steps=max_steps, kill=kill),
        out=out,
        seed=seed,
        driver=driver,
        game=game,
        trainers=losses,
    )
    figures = asyncio.run(demo(options, Console(stderr=True)))
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=1) + "\n")
    sys.exit(0 if succeeded(figures) else 1)
