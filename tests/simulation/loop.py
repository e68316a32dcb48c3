"""A deterministic event loop: time is a number, and a process is what can be frozen and killed.

Nothing sleeps. When no callback is ready, time jumps to the next timer. Each callback belongs to
the life (one start of a process) in whose context it was made: those of a frozen life wait for its
thaw, as under SIGSTOP, and those of a dead life never run, as after SIGKILL.
"""

import asyncio
import contextlib
import sys
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from heapq import heappop, heappush
from itertools import count
from typing import Any

LIFE: ContextVar["Life | None"] = ContextVar("life", default=None)


class Killed(BaseException):
    """Thrown at the very step at which a life ends; nothing may catch it."""


class Life:
    """One start of a process.

    Attributes:
        name: Of the process, the same in all its lives.
        skew: Seconds that its clock is ahead of the broker's.
    """

    def __init__(self, name: str, number: int, skew: float = 0.0) -> None:
        self.name = name
        self.number = number
        self.skew = skew
        self.dead = False
        self.died = 0.0
        self.frozen = False
        self.held: deque[asyncio.Handle] = deque()
        self.tasks: list[asyncio.Task[Any]] = []

    def __repr__(self) -> str:
        return f"{self.name}#{self.number}"


def current_life() -> Life:
    """Whose code this is."""
    life = LIFE.get()
    assert life is not None
    return life


class SimLoop(asyncio.AbstractEventLoop):
    """Runs callbacks one after the other, in the order of time and of their making."""

    def __init__(self) -> None:
        self._now = 0.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._ready: deque[asyncio.Handle] = deque()
        self._ticket = count()
        self._generators: list[Any] = []
        self._stopped = False
        self._closed = False
        self.root = copy_context()
        """The context of what belongs to no process: the network, the broker, the faults."""
        self.steps = 0
        self.unhandled: list[dict[str, Any]] = []

    # -- what asyncio asks of a loop

    def time(self) -> float:
        return self._now

    def call_soon(
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heappush(self._timers, (when, next(self._ticket), handle))
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Any, *, name: str | None = None, context: Context | None = None
    ) -> "asyncio.Task[Any]":
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        life = (context or self.root).get(LIFE) or LIFE.get()
        if life is not None:
            life.tasks.append(task)
            if len(life.tasks) > 200:
                life.tasks = [task for task in life.tasks if not task.done()]
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return self._closed

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.unhandled.append(context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """The timer is passed over when its time comes."""

    # -- running

    def stop(self) -> None:
        """End `run` after this step."""
        self._stopped = True

    def run(self, *, limit: float) -> None:
        """Run until `stop()`, until nothing is left to do, or until the clock reads `limit`."""
        self._stopped = False
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=self._generators.append, finalizer=lambda _: None)
        asyncio._set_running_loop(self)
        ready, timers = self._ready, self._timers
        try:
            while not self._stopped and self._now < limit:
                if not ready:
                    if not timers:
                        return
                    when, _, timer = heappop(timers)
                    if timer._cancelled:
                        continue
                    self._now = max(self._now, when)
                    ready.append(timer)
                handle = ready.popleft()
                if handle._cancelled:
                    continue
                life = handle._context.get(LIFE)
                if life is not None and (life.dead or life.frozen):
                    life.held.append(handle)
                    continue
                self.steps += 1
                handle._run()
        finally:
            asyncio._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)

    # -- lives

    def begin(self, life: Life, main: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Start a life's main coroutine."""
        context = self.root.copy()
        context.run(LIFE.set, life)
        return self.create_task(main, context=context)

    def thaw(self, life: Life) -> None:
        """SIGCONT: everything that came due meanwhile runs now."""
        life.frozen = False
        self._ready.extend(life.held)
        life.held.clear()

    def bury(self, lives: list[Life]) -> None:
        """Unwind what dead and living left behind, once nothing they do has an effect any more."""
        for life in lives:
            life.dead = False
            self.thaw(life)
        for generator in self._generators:
            self.create_task(_close(generator))
        for _ in range(5):
            tasks = [task for life in lives for task in life.tasks if not task.done()]
            for task in tasks:
                task.cancel()
            self.run(limit=self._now + 100)
            if not tasks:
                break
        for life in lives:
            for task in life.tasks:
                if task.done() and not task.cancelled():
                    task.exception()
        self._ready.clear()
        self._timers.clear()
        self._closed = True


async def _close(generator: Any) -> None:
    with contextlib.suppress(BaseException):
        await generator.aclose()


def spawn(loop: SimLoop, main: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
    """A task of nobody's life."""
    return loop.create_task(main, context=loop.root.copy())
