"""Runs of tools that only add steps, and that write them when they like."""

from pathlib import Path

from odradek.infra.errors import NoRewind


class AppendOnlyRun:
    """Knows what such a run holds, and refuses what it cannot do.

    These tools keep what they are given in memory and write the rest of it when the run is closed.
    If the export is killed, nobody knows which steps they wrote. So a file marks the run as open.
    Where an export finds it, the one before was killed: that run is left behind for a new one.

    Args:
        mark: Path of the file; it is made here.
        name: What the tool calls the run.
    """

    def __init__(self, mark: Path, name: str) -> None:
        self._mark, self._name = mark, name
        self._last: int | None = None
        self._left_open = mark.exists()
        mark.touch()

    def rewind(self, step: int) -> None:
        """See `MetricsSink`; what is said first is what the run holds."""
        if self._left_open:
            raise NoRewind(f"an export was killed while it wrote run {self._name!r}")
        if self._last is not None and step < self._last:
            raise NoRewind(f"run {self._name!r} has step {self._last}, and steps are only added")
        self._last = step

    def wrote(self, step: int) -> None:
        """The run holds all steps up to this one."""
        self._last = step

    def close(self) -> None:
        """The tool has written everything."""
        self._mark.unlink(missing_ok=True)
