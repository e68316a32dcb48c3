"""How many runs of a host go on at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from odradek.agents.attempt.attempt import Attempt


class RunSlots:
    """Places for runs, taken in the order in which they were asked for.

    Args:
        count: How many there are.
    """

    def __init__(self, count: int) -> None:
        self._free = asyncio.Semaphore(count)

    @asynccontextmanager
    async def slot(self, run: Attempt) -> AsyncIterator[None]:
        """Wait for a free place. A run that was called off takes none, since it plays nothing."""
        if not await self._take(run):
            yield
            return
        try:
            yield
        finally:
            self._free.release()

    async def _take(self, run: Attempt) -> bool:
        if run.called_off.is_set():
            return False
        if not self._free.locked():
            return await self._free.acquire()
        taking = asyncio.create_task(self._free.acquire())
        off = asyncio.create_task(run.called_off.wait())
        held = False
        try:
            await asyncio.wait({taking, off}, return_when=asyncio.FIRST_COMPLETED)
            held = taking.done()
        finally:
            off.cancel()
            if not held and not taking.cancel():
                self._free.release()  # we were cancelled as we got it
        return held
