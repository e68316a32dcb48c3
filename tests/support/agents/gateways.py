"""A gateway for a test."""

import asyncio
import contextlib

from odradek.agents.gateway.server import Gateway
from odradek.agents.settings import GatewaySettings


@contextlib.asynccontextmanager
async def serving(bus, *, trust=None, **given):
    """A gateway that serves within the block. Raises what ended it before."""
    gateway = Gateway(GatewaySettings(**{"port": 0, **given}), bus, trust=trust)
    running = asyncio.create_task(gateway.run())
    ready = asyncio.create_task(gateway.ready.wait())
    await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED, timeout=60)
    ready.cancel()
    if running.done():
        await running
    try:
        yield gateway
    finally:
        gateway.stop()
        await running
