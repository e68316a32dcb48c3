"""Who may call: every route against every credential that is not good enough."""

import json
import time
from types import SimpleNamespace

import pytest
from aiohttp import ClientSession

from odradek.infra.tokens import Claims, mint
from odradek.proxy import access
from odradek.proxy.errors import ProxyMisconfigured
from odradek.proxy.settings import ProxySettings

from .conftest import KEY

BODY = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
OPEN = {"/healthz", "/readyz", "/{rest}"}
"""Routes that need no credential."""


def bad_tokens():
    good = mint(Claims(sub="e1"), [KEY])
    return {
        "none": (None, 401),
        "expired": (mint(Claims(sub="e1", exp=time.time() - 5), [KEY]), 401),
        "forged": (mint(Claims(sub="e1"), ["x" * 32]), 401),
        "a prefix of a good one": (good[:-3], 401),
        "a good one and more": (good + "x", 401),
        "another episode's": (mint(Claims(sub="e2"), [KEY]), 403),
        "a prefix of the episode": (mint(Claims(sub="e"), [KEY]), 403),
        "SQL": ("' OR 1=1 --", 401),
        "long": ("x" * 7000, 401),
    }


@pytest.mark.parametrize("name", list(bad_tokens()))
async def test_every_route_refuses_every_bad_token(bench, name):
    """The list of routes is the application's own, so a new one without a check fails here."""
    token, expected = bad_tokens()[name]
    await bench.ask()  # the good token is in the cache by now
    routes = {
        (route.method, route.resource.canonical)
        for route in bench.proxy.application().router.routes()
        if route.resource.canonical not in OPEN
    }
    assert len(routes) >= 7
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with ClientSession() as session:
        for method, path in routes:
            if method == "HEAD":
                continue
            url = bench.url + path.replace("{episode}", "e1")
            async with session.request(method, url, json=BODY, headers=headers) as answer:
                # Without an episode in its path, a call belongs to its token's episode.
                fits = "{episode}" not in path and expected == 403
                if fits:
                    assert answer.status not in {401, 403}, path
                else:
                    assert expected == answer.status, path
                if not fits:
                    assert (await answer.json())["error"]["message"]


async def test_two_authorization_headers_are_refused(bench):
    """Nobody guesses which one counts."""
    good = f"Bearer {bench.token()}"
    async with ClientSession() as session:
        headers = [("Authorization", good), ("Authorization", good)]
        url = bench.url + "/e/e1/v1/chat/completions"
        async with session.post(url, json=BODY, headers=headers) as answer:
            assert answer.status == 401


async def test_an_agent_id_that_disagrees_with_the_token_is_refused(bench):
    """Where the token names no agent, the header does."""
    path = "/e/e1/v1/chat/completions"
    named = {"X-Agent-ID": "hilo"}
    other = await bench.post(path, BODY, token=bench.token(agent="coder"), headers=named)
    assert other[0] == 403
    assert not bench.turns()
    for token in (bench.token(agent="hilo"), bench.token()):
        assert (await bench.post(path, BODY, token=token, headers=named))[0] == 200
    assert ["hilo", "hilo"] == [turn.agent for turn in bench.turns()]


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


async def test_the_host_header_decides_nothing(bench):
    """An agent may say any name."""
    headers = {"Host": "169.254.169.254", "X-Forwarded-Host": "evil"}
    answer = await bench.post(
        "/e/e1/v1/chat/completions", BODY, token=bench.token(), headers=headers
    )
    assert answer[0] == 200


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
