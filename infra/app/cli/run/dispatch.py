"""`odradek dispatch`: tasks become A2A requests."""

import click

from odradek.infra.app.cli.options import given


@click.command()
@click.option(
    "--open-groups", type=click.IntRange(min=1), help="Training groups that may be out.  [32]"
)
@click.option(
    "--open-evals", type=click.IntRange(min=1), help="Evaluation groups that may be out.  [64]"
)
@click.option(
    "--no-trainer", is_flag=True, help="No trainer runs: count groups until they are closed."
)
@click.option("--instance", help="A name of this replica that outlives restarts.")
def command(
    open_groups: int | None, open_evals: int | None, no_trainer: bool, instance: str | None
) -> None:
    """Send tasks to their agents, as many as the trainer keeps up with.

    Reads rl.tasks.v1 and writes, for each task, one request per sample to the topic of its agent.
    A training group stays open until a training step has passed its batch, so a stopped trainer
    stops the rollouts; evaluation groups go first and stay open until they are closed. Tasks
    that cannot be sent are dead letters with a reason: `odradek dlq` lists them.

    Needs ODRADEK_KAFKA_BOOTSTRAP_SERVERS.
    """
    from odradek.agents.dispatch.dispatcher import run
    from odradek.agents.settings import DispatchSettings
    from odradek.infra.bus import BusSettings
    from odradek.infra.runtime import process

    settings = DispatchSettings(
        **given(
            open_groups=open_groups,
            open_evals=open_evals,
            instance=instance,
        )
    )
    process.run("dispatcher", run(settings, BusSettings(), trainer=not no_trainer))
