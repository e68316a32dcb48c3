"""Processes under measurement: started, pinned to a core, read from /proc, ended."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from odradek.infra.errors import ProjectError

CPUCLOCK_SCHED: Final = 2
"""The part of a clock's number that selects the scheduler's count, in nanoseconds."""


class MeasuredProcess:
    """A child process whose CPU time is of interest."""

    def __init__(self, child: "subprocess.Popen[bytes]", log: Path) -> None:
        self.child = child
        self.log = log

    def cpu_ms(self) -> float:
        """CPU milliseconds of all its threads since it began."""
        return cpu_ms_of(self.child.pid)

    def rss_kb(self) -> int:
        """Resident kilobytes."""
        pages = int(Path(f"/proc/{self.child.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") // 1024

    def wait_for(self, text: str, timeout_s: float = 30.0) -> str:
        """Its output up to `text`. Raises ProjectError with that output if it never comes."""
        end = time.monotonic() + timeout_s
        while True:
            output = self.log.read_text(errors="replace")
            if text in output:
                return output
            if self.child.poll() is not None or time.monotonic() > end:
                raise ProjectError(f"a process of the benchmark did not start: {output[-500:]}")
            time.sleep(0.05)


def cpu_ms_of(pid: int) -> float:
    """CPU milliseconds of all threads of a process since it began (clock_getcpuclockid(3))."""
    return time.clock_gettime_ns((~pid << 3) | CPUCLOCK_SCHED) / 1e6


def peak_rss_mb(pid: int) -> float:
    """The most megabytes that a process has held, 0 where it has ended. Raises OSError."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


@contextmanager
def started(
    *module_and_args: str, folder: Path, core: int | None, env: Mapping[str, str] | None = None
) -> Iterator[MeasuredProcess]:
    """`python -m MODULE ARGS` on one core (None: any); ended when the block ends."""
    log = folder / f"{module_and_args[0]}-{time.monotonic_ns()}.log"
    with log.open("wb") as out:
        child = subprocess.Popen(
            [sys.executable, "-m", *module_and_args],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
        )
    pin(core, child.pid)
    try:
        yield MeasuredProcess(child, log)
    finally:
        child.terminate()
        try:
            child.wait(15)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


class AskedProcess:
    """A child process that answers each line of its input with a line."""

    def __init__(self, name: str, child: "subprocess.Popen[str]") -> None:
        assert child.stdin is not None
        assert child.stdout is not None
        self._name = name
        self._input, self._output = child.stdin, child.stdout

    def ask(self, word: str) -> str:
        """The answer to a word. Raises ProjectError where it has ended."""
        self._input.write(f"{word}\n")
        self._input.flush()
        return self.answer()

    def answer(self) -> str:
        """Its next line. Raises ProjectError where it has ended."""
        if line := self._output.readline():
            return line.strip()
        raise ProjectError(f"{self._name} of the benchmark ended: run its command by hand")


@contextmanager
def asked(
    name: str, command: Sequence[str], *, core: int | None, env: Mapping[str, str] | None = None
) -> Iterator[AskedProcess]:
    """A command on one core (None: any) that works when it is asked to; ended with the block."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True, env={**os.environ, **(env or {})},
    ) as child:  # fmt: skip
        try:
            pin(core, child.pid)
            yield AskedProcess(name, child)
        finally:
            child.kill()


def pin(core: int | None, pid: int = 0) -> None:
    """Keep a process (0: this one) on one core."""
    if core is not None:
        os.sched_setaffinity(pid, {core})


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Keep this process on one core until the block ends."""
    before = os.sched_getaffinity(0)
    pin(core)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def two_cores() -> tuple[int | None, int | None]:
    """(core under test, core of the load); nothing is pinned where there is only one core."""
    cores = sorted(os.sched_getaffinity(0))
    return (cores[0], cores[1]) if len(cores) > 1 else (None, None)
