"""A small supervisor: starts processes in order, restarts what dies, leaves nothing behind."""

import asyncio
import logging
import signal
import time
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from odradek.infra.app.supervisor.child import Child, ChildState
from odradek.infra.app.supervisor.errors import ProcessNotReady, ProcessRefused, UnknownProcess
from odradek.infra.app.supervisor.spec import Backoff, Spec

USAGE: Final = 2
"""The exit code of a mistake in settings or input."""
POLL_S: Final = 0.1
HEALTH_S: Final = 2.0
"""How long a process may take to say that it is ready."""

log = logging.getLogger("odradek")


class Supervisor:
    """Keeps processes running, as an async context manager.

    ```python
    async with Supervisor(specs, Path(".odradek/logs")) as supervisor:
        await supervisor.ready()
        await supervisor.wait()
    ```

    Args:
        specs: The processes. Raises UnknownProcess if one waits for a name that is not here.
        logs: The folder of the log files, one per process.
        backoff: The waits between restarts.
        grace_s: From SIGTERM to SIGKILL.
    """

    def __init__(
        self,
        specs: Iterable[Spec],
        logs: Path,
        *,
        backoff: Backoff | None = None,
        grace_s: float = 10.0,
    ) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self.children = {spec.name: Child(spec, logs / f"{spec.name}.log") for spec in specs}
        self._backoff = backoff or Backoff()
        self._grace_s = grace_s
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._failed: asyncio.Future[None] | None = None
        for child in self.children.values():
            for name in child.spec.after:
                self._find(name)

    async def __aenter__(self) -> Self:
        self._failed = asyncio.get_running_loop().create_future()
        for name in self.children:
            self._keep(name)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.gather(*(self.stop(name) for name in self.children))
        if self._failed is not None and self._failed.done() and not self._failed.cancelled():
            self._failed.exception()

    async def ready(self) -> None:
        """Return once every essential process is ready.

        Raises ProcessRefused or ProcessNotReady, with the last line of the process' log.
        """
        await self._unless_failed(self._all_ready())

    async def _all_ready(self) -> None:
        for child in self.children.values():
            if child.spec.essential:
                await child.ready.wait()

    async def wait(self) -> None:
        """Wait for ever; raise when a process cannot be kept running."""
        await self._unless_failed(asyncio.Event().wait())

    @property
    def restarts(self) -> dict[str, int]:
        """How often each process has been started again."""
        return {name: child.restarts for name, child in self.children.items()}

    @property
    def states(self) -> dict[str, ChildState]:
        """Where each process stands."""
        return {name: child.state for name, child in self.children.items()}

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to one process, which will be restarted if it dies; returns its id."""
        return self._find(name).kill(number)

    async def stop(self, name: str) -> None:
        """End one process, and do not start it again."""
        child = self._find(name)
        keeper = self._keepers.pop(name, None)
        if keeper is not None:
            keeper.cancel()
            with suppress(asyncio.CancelledError):
                await keeper
        await child.end(self._grace_s)
        child.ready.clear()
        child.become(ChildState.STOPPED)

    async def restart(self, name: str) -> None:
        """Start a process that `stop` has ended, and wait until it is ready."""
        child = self._find(name)
        self._keep(name)
        await self._unless_failed(child.ready.wait())

    def _find(self, name: str) -> Child:
        try:
            return self.children[name]
        except KeyError:
            names = ", ".join(sorted(self.children))
            raise UnknownProcess(f"no process is called {name!r}; there are {names}") from None

    def _keep(self, name: str) -> None:
        self._keepers[name] = asyncio.create_task(self._run(self.children[name]), name=name)

    async def _unless_failed(self, work: Coroutine[Any, Any, Any]) -> None:
        assert self._failed is not None
        task = asyncio.create_task(work)
        try:
            await asyncio.wait({task, self._failed}, return_when=asyncio.FIRST_COMPLETED)
            if self._failed.done():
                self._failed.result()
            await task
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def _fail(self, error: Exception) -> None:
        assert self._failed is not None
        if not self._failed.done():
            self._failed.set_exception(error)

    async def _run(self, child: Child) -> None:
        """The life of a process: wait for others, start, restart."""
        for name in child.spec.after:
            await self.children[name].ready.wait()
        failures = 0
        child.first_at = time.monotonic()
        while True:
            try:
                await child.spawn()
            except OSError as error:
                self._fail(ProcessRefused(f"{child.spec.name} cannot be started: {error}"))
                return
            watch = asyncio.create_task(self._watch_ready(child))
            try:
                code = await child.wait()
            finally:
                watch.cancel()
            if code == 0 and child.spec.finishes:
                child.become(ChildState.FINISHED)
                log.info("%s has finished", child.spec.name)
                return
            # Once it was ready its settings are right, whatever it says now: a broker that is away
            # at a restart must not end the others, which wait for it.
            if code == USAGE and child.state is ChildState.STARTING and not child.ready.is_set():
                child.become(ChildState.REFUSED)
                self._fail(ProcessRefused(f"{child.spec.name}: {child.last_line()} ({child.log})"))
                return
            failures = self._failures(child, failures)
            pause = self._backoff.wait(failures)
            log.warning(
                "%s ended with code %d; starting it again in %.1f s", child.spec.name, code, pause
            )
            child.become(ChildState.BACKING_OFF)
            if self._overdue(child):
                return
            await asyncio.sleep(pause)
            child.restarts += 1

    def _failures(self, child: Child, before: int) -> int:
        calm = time.monotonic() - child.started_at >= self._backoff.calm_s
        return 1 if calm else before + 1

    async def _watch_ready(self, child: Child) -> None:
        """Note when a started process is ready; give up on one that never was in time."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
            while not await _is_ready(child, session):
                if self._overdue(child):
                    return
                await asyncio.sleep(POLL_S)
        child.become(ChildState.READY)
        log.info("%s is ready", child.spec.name)

    def _overdue(self, child: Child) -> bool:
        """Whether a process that was never ready has had its time, over all its starts."""
        late = not child.ready.is_set() and time.monotonic() > child.first_at + child.spec.ready_s
        if late:
            text = f"{child.spec.name} was not ready after {child.spec.ready_s:g} s: "
            self._fail(ProcessNotReady(f"{text}{child.last_line()} ({child.log})"))
        return late


async def _is_ready(child: Child, session: aiohttp.ClientSession) -> bool:
    if not child.spec.health:
        return child.said_ready()
    try:
        # Where aiohttp's own limit and a cancellation meet, it loses the cancellation.
        async with asyncio.timeout(HEALTH_S), session.get(child.spec.health) as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False
