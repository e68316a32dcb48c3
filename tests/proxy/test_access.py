"""Who may call, and how much; tests/security holds every route against every bad credential."""

import json
import time
from types import SimpleNamespace

import pytest
from aiohttp import ClientSession
from multidict import CIMultiDict

from odradek.infra.runtime.episode_tokens import Claims, mint
from odradek.proxy import auth
from odradek.proxy.errors import ProxyMisconfigured
from odradek.proxy.settings import ProxySettings

from .conftest import KEY

BODY = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
OPEN = {"/healthz", "/readyz", "/{rest}"}
"""Routes that need no credential."""


async def test_an_expired_token_is_refused_although_it_is_cached(bench, monkeypatch):
    """The end is checked at each call."""
    token = bench.token(exp=time.time() + 100)
    assert (await bench.post("/e/e1/v1/chat/completions", BODY, token=token))[0] == 200
    later = time.time() + 101
    monkeypatch.setattr(auth, "time", SimpleNamespace(time=lambda: later))
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


@pytest.mark.parametrize(("size", "status"), [(256, 200), (257, 400)])
async def test_names_have_a_bound(bench, size, status):
    """An episode's, and an agent's: they stand in every turn."""
    name = "e" * size
    path = "/v1/chat/completions"
    found = await bench.post(f"/e/{name}{path}", BODY, token=bench.token(name))
    assert status == found[0]
    found = await bench.post(path, BODY, token=bench.token(), headers={"X-Agent-ID": name})
    assert status == found[0]


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "bearer TOKEN"},
        {"Authorization": "Bearer  TOKEN "},
        {"x-api-key": " TOKEN "},
        {"Authorization": "Bearer TOKEN", "x-api-key": "TOKEN"},
    ],
)
async def test_a_token_is_taken_however_it_is_spelt(bench, headers):
    """Schemes have no case, blanks around it say nothing, and some clients send both headers."""
    token = bench.token()
    sent = {name: said.replace("TOKEN", token) for name, said in headers.items()}
    assert 200 == (await bench.post("/v1/chat/completions", BODY, headers=sent))[0]


@pytest.mark.parametrize("settings", [{"auth": "none"}, {"unattributed": True}])
async def test_an_agent_that_needs_no_token_is_recorded_by_the_name_it_gives(make, settings):
    """There is nothing else to know it by."""
    root = "/e/e1/v1" if "auth" in settings else "/v1"
    async with make(**settings) as bench:
        path = f"{root}/chat/completions"
        status, _, _ = await bench.post(path, BODY, headers={"X-Agent-ID": "hilo"})
        assert 200 == status
        (episode,) = {record.key for record in bench.log.on("rl.turns.v1")}
        assert ["hilo"] == [turn.agent for turn in bench.turns(episode)]


async def test_a_token_counts_where_none_is_needed(make):
    """Its calls are its episode's; only who has none is nobody's."""
    async with make(unattributed=True) as bench:
        await bench.post("/v1/chat/completions", BODY, token=bench.token())
        assert 1 == len(bench.turns("e1"))


def test_known_tokens_are_bounded(monkeypatch):
    """Those that came first are forgotten, and read again when they come back."""
    monkeypatch.setattr(auth, "MAX_CACHED", 2)
    gate = auth.Authenticator([KEY])
    for number in (0, 1, 2, 0):
        token = mint(Claims(sub=f"e{number}"), [KEY])
        request = SimpleNamespace(headers=CIMultiDict(), match_info={"token": token})
        assert f"e{number}" == gate.enter(request, None, "call").episode_id
        assert len(gate._cached) <= 2
