"""Weights & Biases: a run of their server, or a folder of an offline run.

Their own variables say where to: WANDB_API_KEY, WANDB_BASE_URL, WANDB_ENTITY, WANDB_MODE. A run of
theirs takes steps in rising order only. So where steps are taken back, another run begins, whose
name ends with the attempt: `main-2`.
"""

from typing import Any

import wandb

from odradek.infra.app.exports.append_only import AppendOnlyRun
from odradek.infra.app.exports.sink import SinkOptions, StepPoint


class WandbRun:
    """Logs to one run of Weights & Biases; offline ones lie in `FOLDER/wandb/`."""

    def __init__(self, options: SinkOptions) -> None:
        key = options.with_attempt(options.file_name)
        self._steps = AppendOnlyRun(options.folder / f"{key}.wandb.open", key)
        self._run: Any = wandb.init(
            project=options.project,
            name=options.with_attempt(options.run),
            id=key,
            dir=options.folder,
            resume="allow",
            config={"odradek_run": options.run, "attempt": options.attempt},
            settings=wandb.Settings(console="off", x_disable_stats=True, disable_git=True),
        )
        if not self._run.offline:
            # Their server knows; offline, nobody does before the run is sent there.
            self._steps.wrote(max(int(self._run.step) - 1, 0))

    def rewind(self, step: int) -> None:
        """See `MetricsSink`."""
        self._steps.rewind(step)

    def write(self, point: StepPoint) -> None:
        """See `MetricsSink`."""
        self._run.log({**point.metrics, "ledger_time": point.at}, step=point.step, commit=True)
        self._steps.wrote(point.step)

    def flush(self) -> None:
        """See `MetricsSink`; they have no such call, and write all when the run is closed."""

    def close(self) -> None:
        """See `MetricsSink`."""
        self._run.finish()
        self._steps.close()
