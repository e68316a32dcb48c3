"""One process of a supervisor: starting it in its own session, knowing its state, ending it."""

import asyncio
import os
import signal
import time
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Final

from odradek.infra.app.supervisor.spec import READY_LINE, Spec
from odradek.infra.runtime.logs import message
from odradek.infra.runtime.process import die_with_parent

TAIL_BYTES: Final = 8192


class ChildState(StrEnum):
    """Where a process stands."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    BACKING_OFF = "backing off"
    FINISHED = "finished"
    STOPPED = "stopped"
    REFUSED = "refused"


LEGAL: Final[dict[ChildState, frozenset[ChildState]]] = {
    ChildState.WAITING: frozenset({ChildState.STARTING, ChildState.STOPPED}),
    ChildState.STARTING: frozenset(
        {
            ChildState.READY,
            ChildState.BACKING_OFF,
            ChildState.REFUSED,
            ChildState.FINISHED,
            ChildState.STOPPED,
        }
    ),
    ChildState.READY: frozenset({ChildState.BACKING_OFF, ChildState.FINISHED, ChildState.STOPPED}),
    ChildState.FINISHED: frozenset({ChildState.STARTING, ChildState.STOPPED}),
    ChildState.BACKING_OFF: frozenset({ChildState.STARTING, ChildState.STOPPED}),
    ChildState.STOPPED: frozenset({ChildState.STARTING, ChildState.STOPPED}),
    ChildState.REFUSED: frozenset({ChildState.STOPPED}),
}


class IllegalState(RuntimeError):
    """A transition that the table does not list: a mistake of this module."""


class Child:
    """A process, its log and its counts."""

    def __init__(self, spec: Spec, log: Path) -> None:
        self.spec = spec
        self.log = log
        self.state = ChildState.WAITING
        self.restarts = 0
        self.first_at = 0.0
        self.started_at = 0.0
        self.ready = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._log_from = 0

    @property
    def pid(self) -> int | None:
        """The process id, which is its process group too, while it runs."""
        alive = self._process is not None and self._process.returncode is None
        return self._process.pid if alive and self._process else None

    def become(self, state: ChildState) -> None:
        """Change the state. Raises IllegalState for what `LEGAL` does not list."""
        if state not in LEGAL[self.state]:
            raise IllegalState(f"{self.spec.name}: {self.state} cannot become {state}")
        self.state = state
        if state in {ChildState.READY, ChildState.FINISHED}:
            self.ready.set()

    async def spawn(self) -> None:
        """Start the process in a session of its own, its output going to the end of its log."""
        self.become(ChildState.STARTING)
        self.started_at = time.monotonic()
        with self.log.open("ab") as log:
            self._log_from = log.tell()
            self._process = await asyncio.create_subprocess_exec(
                *self.spec.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                cwd=self.spec.cwd,
                env={**os.environ, **self.spec.env},
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )

    async def wait(self) -> int:
        """The exit code, once the process has ended and its group with it."""
        assert self._process is not None
        code = await self._process.wait()
        self._kill_group(signal.SIGKILL)
        return code

    async def end(self, grace_s: float) -> None:
        """SIGTERM to the whole group, SIGKILL to the rest after `grace_s` seconds."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            self._kill_group(signal.SIGTERM)
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), grace_s)
        self._kill_group(signal.SIGKILL)
        await process.wait()

    def kill(self, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to the process itself; returns its id. Raises ProcessLookupError."""
        pid = self.pid
        if pid is None:
            raise ProcessLookupError(self.spec.name)
        os.kill(pid, number)
        return pid

    def _kill_group(self, number: signal.Signals) -> None:
        # The group outlives its leader while a grandchild runs, and its id is not reused so long.
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def said_ready(self) -> bool:
        """Whether the log of this start holds the line `ready: …`."""
        with suppress(OSError), self.log.open("rb") as log:
            log.seek(self._log_from)
            return READY_LINE in log.read(1 << 20)
        return False

    def last_line(self) -> str:
        """The last line of the log, or ""."""
        with suppress(OSError), self.log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(0, size - TAIL_BYTES))
            lines = log.read().decode(errors="replace").split("\n")
            return message(next((line.strip() for line in reversed(lines) if line.strip()), ""))
        return ""
