"""A stub engine with vLLM's surface whose tokens anyone can compute again, and a proxy before it."""

from contextlib import asynccontextmanager

import msgspec
import pytest
from proxy_bench import KEY, Bench
from stub_engine import END, ROLES, StubEngine, listening, prompt_ids

from odradek.infra.bus import MemoryAppender
from odradek.proxy.app import Proxy, serving
from odradek.proxy.settings import ProxySettings

__all__ = ["END", "KEY", "ROLES", "Bench", "StubEngine", "listening", "prompt_ids"]


@pytest.fixture
async def engine():
    """A stub engine."""
    stub = StubEngine()
    async with listening(stub.app()) as url:
        stub.url = url
        yield stub
        stub.gate.set()


@pytest.fixture
def make(engine):
    """Proxies with settings of the test's own, over a log in memory."""

    @asynccontextmanager
    async def start(log=None, probe=None, **settings):
        log = log or MemoryAppender()
        settings.setdefault("engine_url", engine.url)
        chosen = ProxySettings(port=0, shutdown_s=0.1, **settings)
        keys = [] if chosen.auth == "none" else [KEY]
        proxy = Proxy(chosen, log, keys=keys, log_probe=probe)
        async with serving(proxy) as url:
            bench = Bench(engine, log, proxy, url)
            try:
                yield bench
            finally:
                engine.gate.set()
                for client in bench.clients:
                    await client.close()

    return start


@pytest.fixture
async def bench(make):
    """A proxy with the defaults."""
    async with make() as found:
        yield found


def whole_messages(turns):
    """Each turn's messages put together again from the deltas, by turn id; brute force."""
    history, found = {}, {}
    for turn in turns:
        request = turn.request
        before = history[request.base][: request.kept] if request.base else []
        found[turn.turn_id] = before + [msgspec.json.decode(m) for m in request.messages]
        history[turn.turn_id] = [*found[turn.turn_id], msgspec.json.decode(turn.reply.message)]
    return found


def whole_prompts(turns):
    """Each turn's prompt ids put together again from the deltas, by turn id; brute force."""
    history, found = {}, {}
    for turn in turns:
        prompt = turn.prompt
        before = history[prompt.base][: 4 * prompt.prefix_len] if prompt.base else b""
        found[turn.turn_id] = before + prompt.ids
        history[turn.turn_id] = found[turn.turn_id] + turn.completion.ids
    return found
