"""Who may call, and how much; tests/security holds every route against every bad credential."""

import json
import time
from types import SimpleNamespace

import pytest
from aiohttp import ClientSession

from odradek.proxy import access
from odradek.proxy.errors import ProxyMisconfigured
from odradek.proxy.settings import ProxySettings

BODY = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
OPEN = {"/healthz", "/readyz", "/{rest}"}
"""Routes that need no credential."""


async def test_an_expired_token_is_refused_although_it_is_cached(bench, monkeypatch):
    """The end is checked at each call."""
    token = bench.token(exp=time.time() + 100)
    assert (await bench.post("/e/e1/v1/chat/completions", BODY, token=token))[0] == 200
    later = time.time() + 101
    monkeypatch.setattr(access, "time", SimpleNamespace(time=lambda: later))
    assert (await bench.post("/e/e1/v1/chat/completions", BODY, token=token))[0] == 401


async def test_other_addresses_and_methods_are_a_404_in_openais_shape(bench):
    """With a hint at what a base URL looks like."""
    async with ClientSession() as session:
        for method, path in (("GET", "/"), ("DELETE", "/e/e1/seal"), ("POST", "/e//v1/x")):
            async with session.request(method, bench.url + path) as answer:
                assert answer.status == 404
                assert "/e/EPISODE/v1" in json.loads(await answer.read())["error"]["message"]


async def test_an_episode_has_a_bound_of_calls_in_flight(make, engine):
    """The next one is a 429 that says when to come back."""
    import asyncio

    engine.gate.clear()
    async with make(calls_per_episode=1) as bench:
        first = asyncio.create_task(bench.ask())
        await engine.entered.wait()
        path = "/e/e1/v1/chat/completions"
        status, headers, _ = await bench.post(path, BODY, token=bench.token())
        assert (status, headers["Retry-After"]) == (429, "1")
        engine.gate.set()
        await first


def test_listening_beyond_loopback_needs_tokens():
    """Neither open calls nor unattributed ones are for a network."""
    ProxySettings(host="0.0.0.0").check()
    ProxySettings(auth="none").check()
    for settings in ({"auth": "none"}, {"unattributed": True}):
        with pytest.raises(ProxyMisconfigured, match="refusing"):
            ProxySettings(host="0.0.0.0", **settings).check()


async def test_without_auth_the_path_is_believed(make):
    """On one's own machine."""
    async with make(auth="none") as bench:
        assert (await bench.post("/e/e9/v1/chat/completions", BODY))[0] == 200
        assert (await bench.post("/e/e9/seal", {}))[0] == 200
        assert len(bench.turns("e9")) == 1


async def test_ready_means_that_log_and_engine_answer(make, engine):
    """An engine that is away is named."""
    async with make() as bench, ClientSession() as session:
        async with session.get(bench.url + "/readyz") as answer:
            assert (answer.status, await answer.json()) == (200, {"status": "ready"})
    async with make(engine_url="http://127.0.0.1:9") as bench, ClientSession() as session:
        async with session.get(bench.url + "/readyz") as answer:
            assert answer.status == 503
            assert "ODRADEK_ENGINE_URL" in (await answer.json())["engine"]
