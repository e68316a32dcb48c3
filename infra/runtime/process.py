"""How a process of ours begins and ends, one way for all of them.

It reports by telemetry while it runs (`observed`), lets Python's collector run rarely
(`settle_collector`), says `ready: NAME` (`say_ready`), and ends by SIGTERM or SIGINT in good order
(`on_signals`, `serve`). Its children die with it (`die_with_parent`).
"""

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, Final, Protocol

log = logging.getLogger("odradek")

ENDS: Final = (signal.SIGTERM, signal.SIGINT)
"""Signals that ask a process to end."""
READY: Final = "ready: "
"""How the line begins that says that a process serves; the supervisor waits for it."""
PR_SET_PDEATHSIG: Final = 1


class Service(Protocol):
    """What runs until it is stopped."""

    ready: asyncio.Event

    async def run(self) -> None:
        """Serve until `stop()`."""
        ...

    def stop(self) -> None:
        """End in good order, after what is under way."""
        ...


def run(name: str, work: Coroutine[Any, Any, None]) -> None:
    """Run a process to its end, on uvloop where it is installed: it costs less per episode."""
    with observed(name), asyncio.Runner(loop_factory=_fast_loop()) as runner:
        runner.run(work)


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        from uvloop import new_event_loop
    except ImportError:
        return None
    return new_event_loop


@contextlib.contextmanager
def observed(name: str) -> Iterator[None]:
    """Telemetry under the name of a process; its last spans and counts are sent at the end."""
    # Not above: a judge's worker needs none of it, and starts often.
    from odradek.infra.runtime import telemetry

    telemetry.setup(name)
    try:
        yield
    finally:
        telemetry.shutdown()


async def serve(service: Service, name: str) -> None:
    """Run a service until SIGTERM or SIGINT; say when it is ready. Raises what it raises."""
    with _ended_by_signals(service.stop):
        announcing = asyncio.create_task(_announce(service, name))
        try:
            await service.run()
        finally:
            announcing.cancel()


async def _announce(service: Service, name: str) -> None:
    await service.ready.wait()
    say_ready(name)


def say_ready(name: str) -> None:
    """Say that a process serves, in the line that the supervisor waits for."""
    log.info("%s%s", READY, name)


def on_signals(stop: Callable[[], object], signals: Sequence[signal.Signals] = ENDS) -> None:
    """Call `stop` at SIGTERM and SIGINT until the process ends.

    Within an event loop it is called between two of its steps, else between two of Python's.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        for number in signals:
            signal.signal(number, lambda *_: stop())
    else:
        for number in signals:
            loop.add_signal_handler(number, stop)


@contextlib.contextmanager
def _ended_by_signals(stop: Callable[[], object]) -> Iterator[None]:
    on_signals(stop)
    try:
        yield
    finally:
        for number in ENDS:
            asyncio.get_running_loop().remove_signal_handler(number)


def cancelled_by_sigterm() -> None:
    """SIGTERM cancels the task that calls this, as ctrl-C does with what asyncio runs."""
    whole = asyncio.current_task()
    assert whole is not None
    on_signals(whole.cancel, [signal.SIGTERM])


def settle_collector(young: int, middle: int, old: int) -> None:
    """Let Python's cycle collector run rarely, and never look at what lives as long as the process.

    Args:
        young: New objects before it looks at them.
        middle: Collections of the young before it looks at those that they left.
        old: Collections of the middle before it looks at all.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(young, middle, old)


def die_with_parent(parent: int | None = None) -> Callable[[], None] | None:
    """What a child calls so that the kernel kills it when its parent is gone (Linux only).

    Args:
        parent: Its id; we, if not given: the child calls before exec what we have made here.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    expected = os.getpid() if parent is None else parent

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
        # The parent may have died before the line above.
        if os.getppid() != expected:
            os._exit(1)

    return ask
