"""The console's process: where it listens, and its end."""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import web

from odradek.infra.app.console.access import Access
from odradek.infra.app.console.app import ConsoleApp, Views
from odradek.infra.app.console.settings import ConsoleSettings
from odradek.infra.errors import ConsoleMisconfigured
from odradek.infra.runtime.environment import address

log = logging.getLogger("odradek")

SHUTDOWN_S: Final = 2.0
"""How long answers in flight may go on after SIGTERM."""


class Console:
    """Serves pages until it is stopped.

    Args:
        settings: The console's.
        views: Where pages come from.

    Raises:
        ConsoleMisconfigured: It would be open to others.
    """

    def __init__(self, settings: ConsoleSettings, views: Views) -> None:
        settings.check()
        self._settings = settings
        self._app = ConsoleApp(
            views, Access(settings.callable_by, settings.token.get_secret_value())
        )
        self._stop = asyncio.Event()
        self.ready = asyncio.Event()
        """Set while it serves."""
        self.address = ""
        """Where it is, once it serves."""

    def stop(self) -> None:
        """End, after the answers that are under way."""
        self._stop.set()

    async def run(self) -> None:
        """Serve until `stop()`. Raises ConsoleMisconfigured for a port or a certificate."""
        async with self._serving() as self.address:
            log.info("console: %s", self.address)
            self.ready.set()
            await self._stop.wait()

    @contextlib.asynccontextmanager
    async def _serving(self) -> AsyncIterator[str]:
        tls = _tls(self._settings)
        runner = web.AppRunner(
            self._app.application(),
            access_log=None,  # names of runs and episodes stand in addresses
            shutdown_timeout=SHUTDOWN_S,
            handler_cancellation=True,  # who leaves asks no more
        )
        await runner.setup()
        try:
            host, port = self._settings.host, self._settings.port
            site = web.TCPSite(runner, host, port, ssl_context=tls)
            try:
                await site.start()
            except OSError as error:
                raise ConsoleMisconfigured(
                    f"cannot listen on {host}:{port}: {error.strerror or error}; choose another "
                    "with --port or ODRADEK_CONSOLE_PORT"
                ) from error
            root = address(host, runner.addresses[0][1])
            yield root.replace("http:", "https:", 1) if tls else root
        finally:
            await runner.cleanup()


def _tls(settings: ConsoleSettings) -> ssl.SSLContext | None:
    if settings.certificate is None or settings.key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.certificate, settings.key)
    except OSError as error:  # ssl.SSLError is one
        raise ConsoleMisconfigured(
            f"{settings.certificate} and {settings.key} are no certificate with its key: {error}"
        ) from error
    return context
