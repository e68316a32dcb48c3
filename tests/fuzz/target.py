"""A proxy to be fuzzed: `python -m tests.fuzz.target DOCUMENT` writes its OpenAPI there.

It needs no token, so that what is sent reaches as deep as it can; the log keeps nothing, and the
engine refuses what it cannot read, as a real one does. Prints its address.
"""

import asyncio
import json
import sys
from pathlib import Path

import uvloop
from aiohttp import web

from odradek.infra.bus import MemoryAppender
from odradek.proxy import app
from odradek.proxy.app import Proxy
from odradek.proxy.openapi import document
from odradek.proxy.server import serving
from odradek.proxy.settings import ProxySettings
from tests.support.engines.stub_engine import StubEngine, listening


class Forgetful(MemoryAppender):
    """A log that acknowledges and forgets."""

    async def append(self, topic, **record):
        """See `Appender`."""
        self.records.clear()
        return await super().append(topic, **record)


class Picky(StubEngine):
    """An engine that answers 400 to what its template cannot render."""

    def app(self):
        """Its routes."""
        app = super().app()
        app.middlewares.append(refusing)
        return app

    async def take(self, request):
        """See `StubEngine`."""
        self.calls.clear()
        self.headers.clear()
        return await super().take(request)


@web.middleware
async def refusing(request, handler):
    """What the stub trips over is the caller's doing."""
    try:
        return await handler(request)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, UnicodeError):
        return web.json_response({"error": {"message": "not understood", "code": 400}}, status=400)


async def main(path):
    """Serve until the parent ends us."""
    engine = Picky()
    async with listening(engine.app()) as engine.url:
        app.IDLE_S = app.SEALED_S = 5.0  # it is asked for hours
        settings = ProxySettings(
            port=0,
            engine_url=engine.url,
            auth="none",
            unattributed=True,
        )
        proxy = Proxy(settings, Forgetful())
        Path(path).write_text(json.dumps(document(proxy.application(), version="0")))
        async with serving(proxy) as url:
            print(url, flush=True)
            await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
