"""A process, as the supervisor starts it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from odradek.infra.runtime.process import READY

READY_LINE: Final = READY.encode()
"""What each process of ours logs once it is ready, followed by its name."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A process to be kept running."""

    name: str
    """Unique; names the log file as well."""
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to our own environment."""
    cwd: Path | None = None
    after: tuple[str, ...] = ()
    """Processes that must be ready before this one is started."""
    health: str = ""
    """An address that answers 200 once the process is ready; empty: its log says `ready: …`."""
    ready_s: float = 120.0
    """How long its first start may take until it is ready."""
    finishes: bool = False
    """Whether ending with code 0 is its end, after which it is not started again."""
    essential: bool = True
    """Whether `start()` waits for it."""


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """How long to wait before a process is started again."""

    first_s: float = 0.2
    factor: float = 2.0
    longest_s: float = 10.0
    calm_s: float = 30.0
    """A process that ran this long begins again with the first wait."""

    def wait(self, failures: int) -> float:
        """Seconds before the start that follows `failures` (1 or more) failures in a row."""
        return min(self.longest_s, self.first_s * self.factor ** (failures - 1))
