"""Running a host or a dispatcher as a process."""

import asyncio
import logging
import signal
from collections.abc import Callable
from typing import Protocol

logger = logging.getLogger("odradek")


class Service(Protocol):
    """What runs until it is told to stop."""

    ready: asyncio.Event

    async def run(self) -> None:
        """Serve."""
        ...

    def stop(self) -> None:
        """End in good order."""
        ...


async def serve(server: Service, name: str) -> None:
    """Run until SIGTERM or SIGINT; say when it is ready."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    serving = asyncio.create_task(server.run())
    announcing = asyncio.create_task(server.ready.wait())
    await asyncio.wait({serving, announcing}, return_when=asyncio.FIRST_COMPLETED)
    if announcing.done():
        logger.info("ready: %s", name)
    announcing.cancel()
    await serving


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Uvloop where it is there, for less overhead per episode; else asyncio's own loop."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return None
    return new_event_loop
