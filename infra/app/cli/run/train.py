"""`odradek train`: batches become weights."""

from typing import Any

import click

from odradek.infra.app.cli.options import given
from odradek.infra.runtime.imports import large_imports
from odradek.trainer.loss_table import listed


@click.command()
@click.option("--model", help="Folder of the model to start from.")
@click.option("--output-dir", help="Where checkpoints and weights go.")
@click.option("--run", help="Name of this run in the ledger.")
@click.option(
    "--begin-anew",
    is_flag=True,
    default=None,
    help="Train from the start again where the run's checkpoints are lost.",
)
@click.option("--policy", help="Name under which weights are announced.")
@click.option("--engine-urls", help="Engines to reload, comma separated.")
@click.option("--batches-topic", help="Topic of batches; another than the live one is a replay.")
@click.option("--replay-of", help="Run whose batches are replayed.")
@click.option("--leads/--no-leads", default=None, help="Whether agents sample from its weights.")
@click.option("--sampled-by", help="Run that leads, where this one does not.")
@click.option("--until-end", is_flag=True, default=None, help="Stop where the topic ends.")
@click.option("--max-steps", type=int, help="Optimizer steps in all.")
@click.option("--loss", help=f"{listed()}.")
@click.option("--learning-rate", type=float, help="Learning rate of AdamW.")
@click.option("--seed", type=int, help="Seed of everything random.")
def command(**options: Any) -> None:
    """Run the trainer: rl.batches.v1 becomes weights, rl.policies.v1 and rl.steps.v1.

    It goes on from the newest whole checkpoint in --output-dir. SIGTERM ends it after the step
    under way, with a checkpoint. Every setting is ODRADEK_TRAINER_<NAME>; an option overrides its
    variable. Kafka: ODRADEK_KAFKA_*.

    Never run on a card: TF32, LIGER, COMPILE_LAYERS and the OPTIMIZERs of bitsandbytes. No LEVEL
    turns them on.

    \b
    A replay, as exact as the first time:
      odradek replay --batches 0:40 --to again
      odradek train --batches-topic again --replay-of main --run again --until-end \\
          --model models/start --output-dir runs/again
    """  # noqa: D301 - \b is click's sign for "do not wrap"
    from odradek.infra.bus import BusSettings

    with large_imports():
        from odradek.trainer.process import run
        from odradek.trainer.settings import TrainerSettings

    run(TrainerSettings(**given(**options)), BusSettings())
