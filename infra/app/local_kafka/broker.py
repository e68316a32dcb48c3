"""A Kafka broker that lives as long as the code which started it."""

import asyncio
import atexit
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from odradek.infra.app.local_kafka.jars import Progress
from odradek.infra.app.local_kafka.server import (
    BrokerPlace,
    choose,
    environment,
    prepare,
    wait_until_ready,
)

READY_S: Final = 120.0
STOP_S: Final = 20.0


class LocalBroker:
    """A real Kafka in KRaft mode on loopback; as a context manager, async or not, or by hand.

    ```python
    async with LocalBroker() as broker:
        AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers)
    ```

    It ends with us even when we are killed: a watcher in its process group holds one end of a
    pipe, and kills the group once the other end, ours, is closed.

    Args:
        data_dir: Kept when the broker stops; without one, a temporary folder that is removed.
        port: On loopback; 0 takes a free one.
        overrides: Lines of server.properties that win over ours.
        progress: Called after each jar that is fetched.
        timeout_s: How long to wait for the first answer.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        port: int = 0,
        overrides: Mapping[str, str] | None = None,
        progress: Progress | None = None,
        timeout_s: float = READY_S,
    ) -> None:
        self._data_dir = data_dir
        self._port = port
        self._overrides = dict(overrides or {})
        self._progress = progress
        self._timeout_s = timeout_s
        self._server: BrokerPlace | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap_servers(self) -> str:
        """The address for clients. Raises RuntimeError before the start."""
        if self._server is None:
            raise RuntimeError("the local broker has not been started")
        return self._server.bootstrap_servers

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs, which is its process group as well."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> Self:
        """Start, wait for the first answer, return self. Running already, it changes nothing.

        Raises errors of `odradek.infra.app.local_kafka.errors`, each with the log's end in its
        message.
        """
        if self.pid is not None:
            return self
        folder = self._data_dir or Path(tempfile.mkdtemp(prefix="odradek-kafka-"))
        atexit.register(self.stop)
        with ExitStack() as failed:
            failed.callback(self._end, folder)  # at ctrl-C as well: no broker stays behind
            self._server = choose(folder, self._port)
            self._launch(prepare(self._server, self._overrides, self._progress))
            wait_until_ready(self._server, lambda: self.pid is not None, self._timeout_s)
            failed.pop_all()
        return self

    def stop(self) -> None:
        """End the broker and its process group; a temporary data folder is removed."""
        if self._server is not None:
            self._end(self._server.folder)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.start)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.stop)

    def _launch(self, command: list[str]) -> None:
        assert self._server is not None
        with self._server.log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._server.folder,
                env=environment(),
                process_group=0,
            )
        self._watcher = subprocess.Popen(
            ["/bin/sh", "-c", "read _; kill -9 0"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=self._process.pid,
        )

    def _end(self, folder: Path) -> None:
        atexit.unregister(self.stop)
        process, self._process = self._process, None
        watcher, self._watcher = self._watcher, None
        if process is not None:
            # Only data that somebody keeps deserves the second that a clean shutdown takes.
            if self._data_dir is not None and process.poll() is None:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_S)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if watcher is not None:
            assert watcher.stdin is not None
            watcher.stdin.close()
            watcher.wait()
        if self._data_dir is None:
            shutil.rmtree(folder, ignore_errors=True)
        self._server = None
