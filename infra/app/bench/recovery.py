"""How long a trainer takes from its start to its first step, on a checkpoint with a batch waiting.

A real process is started as users start it, on the demo's model and a log of its own. Before each
start one batch is published, and once its step's checkpoint is there the process is killed: so
every start continues from a checkpoint and makes one step. The clock runs from the start of the
process until it reports the step; the checkpoint is written beside it, and its time is none of a
recovery's.
"""

import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from odradek.infra.app.bench.harness.site import log_of
from odradek.infra.app.bench.harness.trainer_log import GROUP, EpisodeSize, publisher, trainer
from odradek.infra.bus import BusSettings
from odradek.infra.errors import ProjectError

TIMEOUT_S: Final = 120.0
"""How long a start may take."""


def recovery(starts: int, device: str = "cpu") -> dict[str, Any]:
    """Start a trainer again and again.

    Args:
        starts: How many are measured; one more comes first, which begins the run.
        device: Where the trainer works.

    Returns:
        `recovery_s` {p50, p99} in seconds, and `recovery_repeats_s` with each start.
    """
    from odradek.trainer.engine.tiny import make_tiny

    seconds = []
    with (
        tempfile.TemporaryDirectory() as name,
        log_of(None) as bus,
        publisher(bus, EpisodeSize()) as publish,
    ):
        make_tiny(Path(name) / "model", [], steps=0)
        for step in range(1, starts + 2):
            publish(step)
            seconds.append(_seconds(bus, Path(name), step, device))
    measured = seconds[1:]
    p50, p99 = (round(float(np.percentile(measured, p)), 3) for p in (50, 99))
    return {
        "recovery_s": {"p50": p50, "p99": p99},
        "recovery_repeats_s": [round(value, 3) for value in measured],
    }


def _seconds(bus: BusSettings, folder: Path, step: int, device: str) -> float:
    """From the start of a trainer to the report of its step, after which it is killed."""
    settings = {
        "OUTPUT_DIR": str(folder / "run"), "DEVICE": device, "ROWS_PER_STEP": str(GROUP),
    }  # fmt: skip
    began = time.perf_counter()
    with trainer(bus, folder, settings) as process:
        process.wait_for(f"step {step}: ", TIMEOUT_S)
        took = time.perf_counter() - began
        _await(folder / "run" / f"checkpoint-{step}")
        process.child.kill()
    return took


def _await(checkpoint: Path) -> None:
    """Wait until a checkpoint has its name, which it gets once it is durable."""
    end = time.monotonic() + TIMEOUT_S
    while not checkpoint.is_dir():
        if time.monotonic() > end:
            raise ProjectError(f"{checkpoint} was not written within {TIMEOUT_S:g} s")
        time.sleep(0.02)
