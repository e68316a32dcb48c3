"""A real broker that can be killed, frozen, restarted on its data, put behind a relay, or starved.

The local broker does not fsync, and need not: SIGKILL of the JVM leaves its page cache to the
kernel. What a power cut does is not tested here; replication is for that.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from odradek.infra.app.local_kafka.broker import LocalBroker
from odradek.infra.app.local_kafka.server import free_ports


class Broker:
    """A broker on a port and a folder of its own, which outlive its process.

    Args:
        folder: Its data.
        advertised: The port that clients are told, where a relay stands before the broker.
        overrides: More lines of server.properties.
    """

    def __init__(self, folder, *, port=0, advertised=None, overrides=None):
        self.port = port or free_ports(1)[0]
        self._folder = Path(folder)
        told = {"advertised.listeners": f"PLAINTEXT://127.0.0.1:{advertised}"} if advertised else {}
        self._local = LocalBroker(
            self._folder, port=self.port, overrides={**told, **(overrides or {})}, timeout_s=60
        )
        self.bootstrap_servers = f"127.0.0.1:{advertised or self.port}"
        self.kills = 0

    @property
    def pid(self):
        """The JVM's process id, None while there is none."""
        return self._local.pid

    async def start(self):
        """Start on the same data and port; returns seconds until the first answer."""
        begun = time.monotonic()
        await asyncio.to_thread(self._local.start)
        return time.monotonic() - begun

    async def stop(self):
        """End cleanly."""
        await asyncio.to_thread(self._local.stop)

    async def kill(self):
        """SIGKILL the JVM."""
        assert self.pid is not None, "the broker does not run"
        os.kill(self.pid, signal.SIGKILL)
        self.kills += 1
        await asyncio.to_thread(self._local.stop)

    def freeze(self):
        """SIGSTOP: connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self):
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def cut_off(self):
        """What the broker says that it threw away of its own log when it started."""
        log = self._folder / "server.log"
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        return [line[:300] for line in lines if "discarding" in line or "runcat" in line]

    async def __aenter__(self):
        await self.start()
        return self

    async def __aexit__(self, *_):
        if self.pid is not None:
            with suppress(ProcessLookupError):
                self.thaw()
        await self.stop()


class Disk:
    """A small file system in memory."""

    def __init__(self, folder):
        self.folder = folder
        self._ballast = folder / "ballast"

    @property
    def free(self):
        """Bytes."""
        return shutil.disk_usage(self.folder).free

    def fill(self, leave=0):
        """Take all space but `leave` bytes."""
        size = (self._ballast.stat().st_size if self._ballast.exists() else 0) + self.free - leave
        with self._ballast.open("ab") as file, suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, max(size, 1))

    def clear(self):
        """Give the space back."""
        self._ballast.unlink(missing_ok=True)


@contextmanager
def small_disk(folder, megabytes):
    """Mount a tmpfs of that size on a folder; the test is skipped where that is not allowed."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("a small disk is a tmpfs, and only root may mount one")
    said = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)],
        capture_output=True, text=True,
    )  # fmt: skip
    if said.returncode:
        pytest.skip(f"a small disk is a tmpfs, and mounting one failed: {said.stderr.strip()}")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
