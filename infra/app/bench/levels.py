"""`odradek bench levels`: what the trainer's levels cost and save on this machine."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any, Final

import click

from odradek.infra.app.bench.harness.site import log_of
from odradek.infra.app.bench.harness.trainer_log import GROUP, EpisodeSize, publisher, trainer
from odradek.infra.bus import BusSettings
from odradek.infra.client import subscribe
from odradek.schemas.events import Step
from odradek.schemas.topics import STEPS
from odradek.trainer.levels import LEVELS

TIMEOUT_S: Final = 600.0
"""How long a run may take."""
BATCHES_OF_A_STEP: Final = 8

OPTIONS: Final = (
    click.Option(["--steps"], type=click.IntRange(2), default=11, show_default=True,
                 help="Of each run; the first is left out."),
    click.Option(["--prompt"], type=click.IntRange(1), default=200, show_default=True,
                 help="Tokens that the rows of a group share."),
    click.Option(["--sampled"], type=click.IntRange(1), default=400, show_default=True,
                 help="Tokens of each row's reply."),
    click.Option(["--device"], type=click.Choice(["cpu", "cuda"]), default="cpu",
                 show_default=True, help="Where to train."),
)  # fmt: skip


def run(*, steps: int, prompt: int, sampled: int, device: str) -> dict[str, Any]:
    """Train the same batches at each level: CPU of a step, checkpoints included, and memory.

    A trainer process for each, one after another, on the demo's model. Steps have 64 rows. What a
    level does on a GPU cannot be read off a CPU.

    Without ODRADEK_KAFKA_BOOTSTRAP_SERVERS a local broker is started.
    """
    from odradek.trainer.engine.tiny import make_tiny

    figures: dict[str, Any] = {}
    size = EpisodeSize(prompt, sampled)
    with (
        tempfile.TemporaryDirectory() as name,
        log_of(None) as bus,
        publisher(bus, size) as publish,
    ):
        folder = Path(name)
        make_tiny(folder / "model", [], steps=0)
        for number in range(steps * BATCHES_OF_A_STEP):
            publish(number)
        for level in LEVELS:
            figures[level] = _of_level(level, bus, folder, steps, device)
    return {"levels": figures, "steps": steps, "rows": GROUP * BATCHES_OF_A_STEP, "device": device}


def _of_level(
    level: str, bus: BusSettings, folder: Path, steps: int, device: str
) -> dict[str, float]:
    settings = {
        "LEVEL": level, "RUN": level, "OUTPUT_DIR": str(folder / level), "DEVICE": device,
        "MAX_STEPS": str(steps), "ROWS_PER_STEP": str(GROUP * BATCHES_OF_A_STEP),
    }  # fmt: skip
    with trainer(bus, folder, settings) as process:
        process.wait_for("step 1: ", TIMEOUT_S)
        began = process.cpu_ms()
        process.wait_for(f"step {steps}: ", TIMEOUT_S)
        cpu_s = (process.cpu_ms() - began) / 1000
    made = [step.metrics for step in asyncio.run(_steps(bus, level)) if step.metrics]
    return {
        "cpu_s_a_step": round(cpu_s / (steps - 1), 4),
        "peak_mb": round(max(step["peak_memory_mb"] for step in made), 1),
    }


async def _steps(bus: BusSettings, run_name: str) -> list[Step]:
    """The ledger of a run."""
    ledger = subscribe(
        STEPS.name, since="beginning", follow=False, bus=bus, where={"run": run_name}
    )
    return [step async for step in ledger]
