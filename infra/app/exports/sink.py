"""The seam to the tools that show metrics: what a sink does, and a fake that tests use."""

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from odradek.infra.errors import NoRewind

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_-]")
_LONGEST: Final = 60
"""Characters of a run's name that a file's name holds."""


@dataclass(frozen=True)
class StepPoint:
    """What a sink gets of one step."""

    step: int
    at: float
    """When the ledger got it, in Unix seconds."""
    metrics: dict[str, float]


@dataclass(frozen=True)
class SinkOptions:
    """What a sink is made with."""

    run: str
    """The run's name in the ledger."""
    folder: Path
    """Where files go; it exists."""
    project: str = "odradek"
    """What tools with projects or experiments put the run into."""
    attempt: int = 1
    """Counts how often the run was written from its first step, since a sink refused a `rewind`."""

    @property
    def file_name(self) -> str:
        """The run's name as the name of a file or an id: letters, digits, - and _.

        A name that has others, or is long, gets the beginning of its sha256, so that no two runs
        share a file.
        """
        name = _UNSAFE.sub("_", self.run)[:_LONGEST]
        if name == self.run:
            return name
        return f"{name}-{hashlib.sha256(self.run.encode()).hexdigest()[:8]}"

    def with_attempt(self, name: str) -> str:
        """A name, from the second attempt on with the attempt behind it, such as `main-2`."""
        return f"{name}-{self.attempt}" if self.attempt > 1 else name


class MetricsSink(Protocol):
    """Where the steps of one run go, in the order of their numbers, each once."""

    def rewind(self, step: int) -> None:
        """Take back all steps after `step`.

        Called before the first `write`, and where a trainer that died goes on from an earlier step.

        Raises:
            NoRewind: It holds later steps and cannot take them back. It is closed, and a new one is
                made with the next `attempt` and gets the whole run.
        """
        ...

    def write(self, point: StepPoint) -> None:
        """Take the next step."""
        ...

    def flush(self) -> None:
        """Make everything durable that was written: it is not written again."""
        ...

    def close(self) -> None:
        """Let go of files and connections; what was not flushed may be lost."""
        ...


@dataclass
class MemorySink:
    """A sink that keeps points in memory, for tests; a step that does not come next is an error.

    Attributes:
        durable: By step, what was flushed.
        rewinds: The steps to which it was taken back.
    """

    append_only: bool = False
    """Whether it refuses to take back what it holds."""
    durable: dict[int, StepPoint] = field(default_factory=dict)
    rewinds: list[int] = field(default_factory=list)
    closed: bool = False
    _pending: list[StepPoint] = field(default_factory=list)

    def rewind(self, step: int) -> None:
        """See `MetricsSink`."""
        later = [n for n in [*self.durable, *(point.step for point in self._pending)] if n > step]
        if later and self.append_only:
            raise NoRewind(f"steps {min(later)} to {max(later)} are written")
        self.rewinds.append(step)
        self._pending = [point for point in self._pending if point.step <= step]
        self.durable = {n: point for n, point in self.durable.items() if n <= step}

    def write(self, point: StepPoint) -> None:
        """See `MetricsSink`. Raises ValueError for a step that it holds already, or has passed."""
        held = max([*self.durable, *(earlier.step for earlier in self._pending)], default=-1)
        if point.step <= held:
            raise ValueError(f"step {point.step} comes behind step {held}")
        self._pending.append(point)

    def flush(self) -> None:
        """See `MetricsSink`."""
        self.durable |= {point.step: point for point in self._pending}
        self._pending = []

    def close(self) -> None:
        """See `MetricsSink`."""
        self._pending = []
        self.closed = True
