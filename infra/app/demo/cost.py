"""CPU seconds of processes from /proc, restarts included."""

import asyncio
import os
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from odradek.infra.app.supervisor import Supervisor

EVERY_S: Final = 1.0


@dataclass
class Costs:
    """CPU seconds by process name."""

    by_pid: dict[str, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))

    @property
    def seconds(self) -> dict[str, float]:
        """CPU seconds of each process over all its starts, the costliest first."""
        sums = {name: sum(pids.values()) for name, pids in self.by_pid.items()}
        return dict(sorted(sums.items(), key=lambda pair: -pair[1]))

    async def run(self, supervisor: Supervisor) -> None:
        """Look every second until cancelled."""
        while True:
            for name, child in supervisor.children.items():
                if child.pid is not None:
                    self.by_pid[name][child.pid] = _cpu_seconds(child.pid)
            await asyncio.sleep(EVERY_S)


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process and of its children that have ended; 0 off Linux."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    fields = text.rpartition(")")[2].split()
    ticks = sum(int(fields[at]) for at in (11, 12, 13, 14))
    return ticks / os.sysconf("SC_CLK_TCK")
