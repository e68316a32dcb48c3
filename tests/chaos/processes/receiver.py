"""A webhook that writes down what it took, and refuses now and then.

`python -m tests.chaos.processes.receiver PORT JOURNAL`
"""

import asyncio
import hashlib
import os
import random
import signal
import sys

import msgspec
import uvloop
from aiohttp import web

REFUSES = 0.1
"""Share of the posts that it answers with 503."""


async def serve(port: int, journal: int) -> None:
    """Listen on loopback until the process is told to end."""
    chance = random.Random(0)

    async def take(request: web.Request) -> web.Response:
        body = await request.read()
        if chance.random() < REFUSES:
            return web.Response(status=503)
        line = (request.headers["webhook-id"], hashlib.sha256(body).hexdigest())
        os.write(journal, msgspec.json.encode(line) + b"\n")
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/hook", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    print("ready: receiver", flush=True)
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    await over.wait()


if __name__ == "__main__":
    flags = os.O_APPEND | os.O_CREAT | os.O_WRONLY
    uvloop.run(serve(int(sys.argv[1]), os.open(sys.argv[2], flags, 0o600)))
