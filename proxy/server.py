"""The HTTP server around a proxy: where it listens, and what of a request it takes."""

import contextlib
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import web

from odradek.infra.runtime.environment import address
from odradek.proxy.app import MAX_HEADER_BYTES, Proxy
from odradek.proxy.errors import ProxyMisconfigured
from odradek.proxy.quiet import http_log

SHUTDOWN_S: Final = 5.0
"""How long calls in flight may go on after SIGTERM."""
PARSED: Final = 4
"""A single header, or the address, may be so many times the bound on all headers, for our own
refusal. Beyond that, and beyond 128 headers, aiohttp ends the connection with its own 400."""


@contextlib.asynccontextmanager
async def serving(proxy: Proxy, *, shutdown_s: float = SHUTDOWN_S) -> AsyncIterator[str]:
    """Serve until the block ends; gives the address. Raises ProxyMisconfigured for a used port."""
    settings = proxy.settings
    runner = web.AppRunner(
        proxy.application(),
        access_log=None,  # a token may stand in a path
        logger=http_log(),
        shutdown_timeout=shutdown_s,
        keepalive_timeout=75.0,
        max_line_size=PARSED * MAX_HEADER_BYTES,
        max_field_size=PARSED * MAX_HEADER_BYTES,
        # A call whose client leaves goes on: it is recorded, and a retry may join it.
        handler_cancellation=False,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host, settings.port, backlog=4096)
        try:
            await site.start()
        except OSError as error:
            raise ProxyMisconfigured(
                f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}; "
                "choose another with ODRADEK_PROXY_PORT"
            ) from error
        host, port = runner.addresses[0][:2]
        yield address(host, port)
    finally:
        await runner.cleanup()
