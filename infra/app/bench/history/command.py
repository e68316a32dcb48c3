"""A command line, measured: how long it takes, and how much memory it has held at most."""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping

from msgspec import Struct

from odradek.infra.errors import ProjectError


class MeasuredCommand(Struct, frozen=True):
    """What a command cost."""

    seconds: float
    """From its start to its end, Python's start among them."""
    cpu_s: float
    """Of all its processes."""
    rss_mb: float
    """The most that one of its processes has held."""
    output: str


def odradek(*arguments: str, env: Mapping[str, str]) -> MeasuredCommand:
    """Run `odradek ARGUMENTS`. Raises ProjectError with its last line where it fails."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, "-m", "odradek.infra.app.cli", *arguments],
            stdin=subprocess.DEVNULL, stdout=out, stderr=errors, env={**os.environ, **env},
        )  # fmt: skip
        _, status, used = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            errors.seek(0)
            last = errors.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise ProjectError(f"`odradek {' '.join(arguments)}` ended with {status}: {last}")
        out.seek(0)
        output = out.read().decode(errors="replace")
    return MeasuredCommand(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, output)


async def beside(*arguments: str, env: Mapping[str, str]) -> MeasuredCommand:
    """The same, while this process goes on with other work."""
    return await asyncio.to_thread(odradek, *arguments, env=env)
