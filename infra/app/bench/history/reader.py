"""A subscriber of episodes and batches that reads when it is asked to.

`python -m odradek.infra.app.bench.history.reader`; each line of its input is `on` or `off`, and
it answers with the same word once it is so. While it is off it has no connection.
"""

import asyncio
import sys
from contextlib import suppress

from odradek.infra.bus import BusSettings, at_end, follow
from odradek.schemas.topics import BATCHES, EPISODES


async def _read(ready: asyncio.Event) -> None:
    async for _ in follow(
        BusSettings(), EPISODES.name, BATCHES.name, start=at_end, ready=ready.set
    ):
        pass


async def _main() -> None:
    reading: asyncio.Task[None] | None = None
    while word := (await asyncio.to_thread(sys.stdin.readline)).strip():
        if word == "on":
            ready = asyncio.Event()
            reading = asyncio.create_task(_read(ready))
            await ready.wait()
        elif reading is not None:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading
            reading = None
        print(word, flush=True)


if __name__ == "__main__":
    asyncio.run(_main())
