"""TensorBoard's event files, a folder for each run: `tensorboard --logdir FOLDER`.

A file of events is only ever added to. Where steps are taken back, an event says that a new session
starts at the next step, and TensorBoard drops what it has from there on.
"""

import time
from typing import Final

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from odradek.infra.app.exports.sink import SinkOptions, StepPoint

SUFFIX: Final = ".odradek"
"""The end of our files' names: no other file of the folder is ever deleted."""


class TensorBoardEvents:
    """Writes `FOLDER/RUN/events.out.tfevents.*`."""

    def __init__(self, options: SinkOptions) -> None:
        self._folder = options.folder / options.file_name
        self._folder.mkdir(exist_ok=True)
        self._writer: EventFileWriter | None = None

    def rewind(self, step: int) -> None:
        """See `MetricsSink`."""
        if step:
            session = SessionLog(status=SessionLog.START)
            self._add(Event(wall_time=time.time(), step=step + 1, session_log=session))
            return
        self.close()
        for file in self._folder.glob(f"events.out.tfevents.*{SUFFIX}"):
            file.unlink()

    def write(self, point: StepPoint) -> None:
        """See `MetricsSink`."""
        values = [
            Summary.Value(tag=name, simple_value=value) for name, value in point.metrics.items()
        ]
        self._add(Event(wall_time=point.at, step=point.step, summary=Summary(value=values)))

    def flush(self) -> None:
        """See `MetricsSink`."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """See `MetricsSink`."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _add(self, event: Event) -> None:
        if self._writer is None:
            self._writer = EventFileWriter(str(self._folder), filename_suffix=SUFFIX)
        self._writer.add_event(event)
