"""Points that do not come from the ledger, such as evaluations, to a sink: each step once."""

import dataclasses
import logging
from collections.abc import Callable

import msgspec

from odradek.infra.app.exports.sink import MetricsSink, SinkOptions, StepPoint
from odradek.infra.app.exports.state import ExportState, StateFile
from odradek.infra.errors import NoRewind

log = logging.getLogger("odradek")


class PointWriter:
    """Writes points to a sink as they come, and remembers the last one's step.

    A step that comes again, or an earlier one, takes the place of those from there on. A sink that
    cannot take them back is left for a new one, which gets the points of this process.

    Args:
        sinks: Makes the sink.
        options: What it is made with.
        file: Of the state; claimed by whoever makes us.
        state: What an earlier writer wrote, `offset` points up to `step`.
    """

    def __init__(
        self,
        sinks: Callable[[SinkOptions], MetricsSink],
        options: SinkOptions,
        file: StateFile,
        state: ExportState,
    ) -> None:
        self.state = state
        self._sinks, self._options, self._file = sinks, options, file
        self._points: list[StepPoint] = []
        self._sink = self._made()
        try:
            self._sink.rewind(state.step)
        except NoRewind as why:
            self._anew(why)

    @property
    def last(self) -> int | None:
        """Step of the last point; None before the first."""
        return self.state.step if self.state.offset else None

    def add(self, point: StepPoint) -> None:
        """Write the next point, durably."""
        if self.last is not None and point.step <= self.last:
            self._points = [earlier for earlier in self._points if earlier.step < point.step]
            try:
                self._sink.rewind(point.step - 1)
            except NoRewind as why:
                self._anew(why)
        self._points.append(point)
        self._sink.write(point)
        self._sink.flush()
        self._save(offset=self.state.offset + 1, step=point.step)

    def close(self) -> None:
        """Close the sink."""
        self._sink.close()

    def _made(self) -> MetricsSink:
        return self._sinks(dataclasses.replace(self._options, attempt=self.state.attempt))

    def _anew(self, why: NoRewind) -> None:
        """Go on with a new sink, which gets the points of this process that still count."""
        self._sink.close()
        self._save(attempt=self.state.attempt + 1, offset=0, step=0)
        log.warning("%s: attempt %d begins a new one", why, self.state.attempt)
        self._sink = self._made()
        self._sink.rewind(0)
        for point in self._points:
            self._sink.write(point)
        self._sink.flush()

    def _save(self, **changes: int) -> None:
        self.state = msgspec.structs.replace(self.state, **changes)
        self._file.save(self.state)
