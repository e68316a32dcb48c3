"""Fixtures of all tests that call a proxy; a conftest imports them."""

from contextlib import asynccontextmanager

import pytest

from odradek.infra.bus import MemoryAppender
from odradek.proxy import app
from odradek.proxy.app import Proxy
from odradek.proxy.engines import member, pool
from odradek.proxy.episodes import budget
from odradek.proxy.server import serving
from odradek.proxy.settings import ProxySettings
from tests.support.engines.stub_engine import StubEngine, listening
from tests.support.proxy.proxy_bench import KEY, Bench


@pytest.fixture
async def engine():
    """A stub engine."""
    stub = StubEngine()
    async with listening(stub.app()) as url:
        stub.url = url
        yield stub
        stub.gate.set()
        stub.head.set()


CONSTANTS = {
    "CONNECT_S": pool, "HEALTH_S": pool, "LOG_PATIENCE_S": app, "ORPHAN_S": app,
    "MAX_HEADER_BYTES": app, "STREAMS_PER_TOKEN": budget, "MAX_EPISODE_CALLS": budget,
    "MAX_EPISODE_TOKENS": budget,
}  # fmt: skip
"""What no setting changes and some test does, and where it stands."""


@pytest.fixture
def make(engine, monkeypatch):
    """Proxies with settings and CONSTANTS of the test's own, over a log in memory."""
    # An engine of a test answers: how long it takes to says how busy the machine is.
    monkeypatch.setattr(member, "HEALTH_TIMEOUT_S", 60.0)

    @asynccontextmanager
    async def start(log=None, probe=None, versions=None, proves=False, **settings):
        log = log or MemoryAppender()
        for name in CONSTANTS.keys() & settings.keys():
            monkeypatch.setattr(CONSTANTS[name], name, settings.pop(name))
        settings.setdefault("engine_url", engine.url)
        settings.setdefault("engine_wait_s", 0.0)
        chosen = ProxySettings(port=0, **settings)
        keys = [] if chosen.auth == "none" else [KEY]
        proxy = Proxy(chosen, log, keys=keys, log_probe=probe, versions=versions, proves=proves)
        async with serving(proxy, shutdown_s=0.1) as url:
            bench = Bench(engine, log, proxy, url)
            try:
                yield bench
            finally:
                engine.gate.set()
                engine.head.set()
                for client in bench.clients:
                    await client.close()

    return start


@pytest.fixture
async def bench(make):
    """A proxy with the defaults."""
    async with make() as found:
        yield found
