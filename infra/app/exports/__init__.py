"""Exports: a run's steps, from the trainer's ledger to the tools that people watch runs with.

`line` folds the ledger into the steps that count. `sink` is the seam: what writes them somewhere,
and a fake that keeps them in memory. `follow` reads the ledger, feeds the sink and keeps in `state`
how far it has come. All other modules are sinks, one for each tool.

`SINKS` is the table of them. `odradek export` and its help derive from it. A sink of your own is a
file and one line here: docs/watch-a-run.md.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from odradek.infra.app.exports.sink import MetricsSink, SinkOptions
from odradek.infra.errors import ExportRefused
from odradek.infra.runtime.imports import import_entry

__all__ = ["SINKS", "SinkEntry"]


@dataclass(frozen=True)
class SinkEntry:
    """What is known of a sink before it is imported."""

    place: str
    """`module:Class` of its `MetricsSink`."""
    about: str
    """What the help says of it."""
    extra: str = ""
    """The extra of the package that brings what it needs beyond the core."""

    def load(self) -> Callable[[SinkOptions], MetricsSink]:
        """Import its class. Raises ExportRefused where its extra is not installed."""
        try:
            sink: Callable[[SinkOptions], MetricsSink] = import_entry(self.place)
        except ModuleNotFoundError as error:
            if not self.extra:
                raise
            raise ExportRefused(
                f"this export needs {error.name}: pip install 'odradek[{self.extra}]'"
            ) from error
        return sink


_HERE: Final = "odradek.infra.app.exports"
SINKS: Final[dict[str, SinkEntry]] = {
    "csv": SinkEntry(f"{_HERE}.csv_file:CsvFile", "A table in a file, a line for each step."),
    "tensorboard": SinkEntry(
        f"{_HERE}.tensorboard:TensorBoardEvents", "TensorBoard's event files.", "tensorboard"
    ),
    "wandb": SinkEntry(f"{_HERE}.wandb:WandbRun", "A run of Weights & Biases.", "wandb"),
    "trackio": SinkEntry(f"{_HERE}.trackio:TrackioRun", "A run of Trackio.", "trackio"),
    "mlflow": SinkEntry(f"{_HERE}.mlflow:MlflowRun", "A run of MLflow.", "mlflow"),
}
"""Sinks by the name that `odradek export` knows them by."""
