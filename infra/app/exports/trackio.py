"""Trackio: a run in its local database, on a server of its own, or in a Space of Hugging Face.

Its own variables say where to: TRACKIO_DIR, TRACKIO_SPACE_ID, TRACKIO_SERVER_URL. It keeps a second
row of a step beside the first. So where steps are taken back, another run begins, whose name ends
with the attempt: `main-2`.
"""

from typing import Any

import trackio

from odradek.infra.app.exports.append_only import AppendOnlyRun
from odradek.infra.app.exports.sink import SinkOptions, StepPoint


class TrackioRun:
    """Logs to one run of Trackio."""

    def __init__(self, options: SinkOptions) -> None:
        name = options.with_attempt(options.run)
        key = options.with_attempt(options.file_name)
        self._steps = AppendOnlyRun(options.folder / f"{key}.trackio.open", name)
        self._run: Any = trackio.init(
            options.project,
            name=name,
            resume="allow",
            config={"odradek_run": options.run, "attempt": options.attempt},
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def rewind(self, step: int) -> None:
        """See `MetricsSink`."""
        self._steps.rewind(step)

    def write(self, point: StepPoint) -> None:
        """See `MetricsSink`."""
        self._run.log({**point.metrics, "ledger_time": point.at}, step=point.step)
        self._steps.wrote(point.step)

    def flush(self) -> None:
        """See `MetricsSink`; their thread writes twice a second, and the rest at the end."""

    def close(self) -> None:
        """See `MetricsSink`."""
        self._run.finish()
        self._steps.close()
