"""MLflow: a run of a tracking server, or of a database in a file.

MLFLOW_TRACKING_URI says where; without it, it is `FOLDER/mlflow.db`. MLflow keeps a second value of
a step beside the first. So where steps are taken back, another run begins under the same name, and
the old one moves to MLflow's deleted runs, from where it can be restored.
"""

import os
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric

from odradek.infra.app.exports.sink import SinkOptions, StepPoint
from odradek.infra.errors import NoRewind


class MlflowRun:
    """Logs to one run of an experiment, which is named like the project."""

    def __init__(self, options: SinkOptions) -> None:
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{options.folder / 'mlflow.db'}"
        self._client: Any = MlflowClient(uri)
        self._run_id = self._found(options)
        history = self._client.get_metric_history(self._run_id, "step")
        self._last = max((metric.step for metric in history), default=0)
        self._pending: list[StepPoint] = []

    def _found(self, options: SinkOptions) -> str:
        """The run of this attempt, made if need be; those of earlier ones are put aside."""
        experiment = self._client.get_experiment_by_name(options.project)
        key = (
            experiment.experiment_id
            if experiment
            else self._client.create_experiment(options.project)
        )
        tags = {"odradek_run": options.file_name, "odradek_attempt": str(options.attempt)}
        for run in self._client.search_runs([key], f"tags.odradek_run = '{options.file_name}'"):
            if run.data.tags["odradek_attempt"] == tags["odradek_attempt"]:
                return str(run.info.run_id)
            self._client.delete_run(run.info.run_id)
        return str(self._client.create_run(key, run_name=options.run, tags=tags).info.run_id)

    def rewind(self, step: int) -> None:
        """See `MetricsSink`."""
        self._pending = [point for point in self._pending if point.step <= step]
        if step < self._last:
            raise NoRewind(f"run {self._run_id} of MLflow has step {self._last}")

    def write(self, point: StepPoint) -> None:
        """See `MetricsSink`."""
        self._pending.append(point)

    def flush(self) -> None:
        """See `MetricsSink`; the metric `step`, written last, says which steps are whole."""
        for point in self._pending:
            at = int(point.at * 1000)
            values = {**point.metrics, "step": float(point.step)}
            metrics = [Metric(name, value, at, point.step) for name, value in values.items()]
            self._client.log_batch(self._run_id, metrics=metrics)
            self._last = point.step
        self._pending = []

    def close(self) -> None:
        """See `MetricsSink`."""
        self._client.set_terminated(self._run_id)
