"""A command line, measured: how long it takes, and how much memory it has held at most."""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from threading import Event, Thread

from msgspec import Struct

from odradek.infra.app.bench.harness.processes import peak_rss_mb
from odradek.infra.errors import ProjectError

LOOK_S = 0.05


class MeasuredCommand(Struct, frozen=True):
    """What a command cost."""

    seconds: float
    """From its start to its end, Python's start among them."""
    rss_mb: float
    """The most that the process itself has held; its workers are not counted."""
    output: str


def odradek(*arguments: str, env: Mapping[str, str]) -> MeasuredCommand:
    """Run `odradek ARGUMENTS`. Raises ProjectError with its last line where it fails."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, "-m", "odradek.infra.app.cli", *arguments],
            stdin=subprocess.DEVNULL, stdout=out, stderr=errors, env={**os.environ, **env},
        )  # fmt: skip
        with _peak(child.pid) as held:
            code = child.wait()
            seconds = time.perf_counter() - began
        if code:
            errors.seek(0)
            last = errors.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise ProjectError(f"`odradek {' '.join(arguments)}` ended with {code}: {last}")
        out.seek(0)
        output = out.read().decode(errors="replace")
    return MeasuredCommand(seconds, held[0], output)


@contextmanager
def _peak(pid: int) -> Iterator[list[float]]:
    """The most megabytes that a process has held, looked at until the block ends.

    What `wait4` says begins with the memory of the process that started it.
    """
    held, over = [0.0], Event()

    def look() -> None:
        while not over.wait(LOOK_S):
            with suppress(OSError):
                held[0] = max(held[0], peak_rss_mb(pid))

    thread = Thread(target=look, daemon=True)
    thread.start()
    try:
        yield held
    finally:
        over.set()
        thread.join()


async def beside(*arguments: str, env: Mapping[str, str]) -> MeasuredCommand:
    """The same, while this process goes on with other work."""
    return await asyncio.to_thread(odradek, *arguments, env=env)
