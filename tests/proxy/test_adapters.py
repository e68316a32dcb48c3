"""Where a policy is an adapter, calls ask for the newest by its name, and are of just that version."""

import asyncio
import json
from types import SimpleNamespace

import pytest
from aiohttp import web

from odradek.infra.bus import Record
from odradek.proxy.engines import member as members
from odradek.proxy.engines.policy_version import PolicyVersions
from odradek.proxy.engines.sglang import SglangAdapter
from odradek.proxy.wire.version_spans import newest_adapter
from odradek.schemas import codec
from odradek.schemas.events import Policy, VersionSpan
from tests.support.engines.stub_engine import StubEngine, listening


class Adapted(StubEngine):
    """An engine with adapters beside its model, whose own weights nobody named."""

    def __init__(self, *versions):
        super().__init__()
        self.version = 0
        self.adapters = [f"policy-v{version}" for version in versions]
        self.listings = 0

    async def models(self, request):
        self.listings += 1
        names = ["policy", *self.adapters]
        return web.json_response({"object": "list", "data": [{"id": name} for name in names]})

    async def take(self, request):
        asked, answer = await super().take(request)
        name = asked["model"]
        if answer is None and name != "policy" and name not in self.adapters:
            error = {"error": {"message": f"The model `{name}` does not exist.", "code": 404}}
            return asked, web.json_response(error, status=404)
        return asked, answer

    @property
    def asked(self):
        return [call["model"] for call in self.calls]


@pytest.fixture
def before(make, monkeypatch):
    """Engines with these adapters, and a proxy that knows of version 7 at all of them."""
    monkeypatch.setattr(members, "ASK_AGAIN_S", 0.01)

    class Before:
        def __init__(self, *engines, **settings):
            self.engines, self.settings = engines, settings

        async def __aenter__(self):
            self.open = []
            for engine in self.engines:
                server = listening(engine.app())
                engine.url = await server.__aenter__()
                self.open.append(server)
            urls = [engine.url for engine in self.engines]
            self.log = SimpleNamespace(current=7, engines=dict.fromkeys(urls, 7), adapter="policy")
            proxy = make(engine_url=",".join(urls), versions=self.log, **self.settings)
            self.bench = await proxy.__aenter__()
            self.open.append(proxy)
            return self

        async def __aexit__(self, *error):
            for server in reversed(self.open):
                await server.__aexit__(*error)

    return Before


def versions(bench, episode="e1"):
    """(version of all tokens of it, who says so) of each turn."""
    turns = bench.turns(episode)
    assert all(len(turn.versions) == 1 for turn in turns)
    return [(turn.versions[0].version, turn.versions_from) for turn in turns]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_asks_for_the_newest_adapter_and_is_of_its_version(before, stream):
    """Whatever the engine says of the model beneath, and whatever the agent calls it."""
    engine = Adapted(6, 7)
    async with before(engine) as found:
        reply = await found.bench.ask(stream=stream)
        if stream:
            [_ async for _ in reply]
        assert ["policy-v7"] == engine.asked
        assert "7" == engine.calls[0]["cache_salt"]
        assert [(7, "engine")] == versions(found.bench)
        (turn,) = found.bench.turns()
        assert "policy" == turn.model


async def test_an_adapter_that_comes_in_the_middle_of_a_call_changes_nothing_of_it(before):
    """The call is of the version that it asked for; the next one of the new one."""
    engine = Adapted(7)
    async with before(engine) as found:
        engine.gate.clear()
        asking = asyncio.create_task(found.bench.ask())
        await engine.entered.wait()
        engine.adapters.append("policy-v8")
        found.log.current, found.log.engines = 8, {engine.url: 8}
        engine.gate.set()
        await asking
        await found.bench.ask("again")
        assert ["policy-v7", "policy-v8"] == engine.asked
        assert [(7, "engine"), (8, "engine")] == versions(found.bench)


async def test_an_engine_that_is_behind_is_asked_for_the_newest_that_it_has(before):
    """While no other engine has a newer one, after a while."""
    engine = Adapted(5, 6)
    async with before(engine, engine_wait_s=0.05) as found:
        found.log.engines = {engine.url: 0}  # it refused the newest, and nobody knows what it has
        await found.bench.ask()
        assert ["policy-v6"] == engine.asked
        assert [(6, "engine")] == versions(found.bench)


async def test_an_engine_that_lost_its_adapters_gets_no_call_until_it_has_the_newest(before):
    """It was started anew and nobody noticed: the call that finds out waits for the other engine."""
    first, second = Adapted(7), Adapted(7)
    async with before(first, second) as found:
        for episode in map(str, range(6)):
            await found.bench.ask(episode=episode)
        lost, well = (first, second) if first.calls else (second, first)
        lost.adapters.clear()
        lost.calls.clear()
        for episode in map(str, range(6)):
            await found.bench.ask("again", episode=episode)
        assert 1 == len(lost.calls)
        assert {"policy-v7"} == set(well.asked)
        for episode in map(str, range(6)):
            assert [(7, "engine")] * 2 == versions(found.bench, episode)


async def test_alone_it_is_waited_for_and_then_samples_with_what_it_has(before):
    """Without any adapter that is the model itself, which is version 0: older than all."""
    engine = Adapted()
    async with before(engine, engine_wait_s=0.05) as found:
        await found.bench.ask()
        assert ["policy-v7", "policy"] == engine.asked
        assert [(0, "engine")] == versions(found.bench)
        engine.adapters.append("policy-v7")
        await found.bench.ask("again")
        assert [(0, "engine"), (7, "engine")] == versions(found.bench)


async def test_a_mistake_of_an_agents_own_is_no_lost_adapter(before):
    """A 400 that does not name the adapter goes to the agent at once."""
    engine = Adapted(7)
    async with before(engine) as found:
        engine.mode = "error"
        body = {"model": "policy", "messages": [{"role": "user", "content": "hi"}]}
        status, _, _ = await found.bench.post(
            "/e/e1/v1/chat/completions", body, token=found.bench.token()
        )
        assert (400, 1) == (status, len(engine.calls))


def record(policy):
    return Record("rl.policies.v1", 0, 0, "policy", codec.encode(policy), {}, 0.0)


def test_the_log_says_whether_a_policy_is_an_adapter():
    """The newest one counts: a policy may become whole weights."""
    log = PolicyVersions("policy")
    for version, form in ((1, "lora"), (2, "safetensors"), (3, "lora")):
        log.take(record(Policy(name="policy", version=version, uri="file:///w", format=form)))
        assert ("policy" if form == "lora" else "") == log.adapter


def test_sglang_is_told_the_adapter_in_its_own_word():
    """Its `model` names the model beneath."""
    body = SglangAdapter().named(b'{"model": "policy", "messages": []}', "policy-v7")
    assert {"model": "policy", "messages": [], "lora_path": "policy-v7"} == json.loads(body)


@pytest.mark.parametrize(
    ("answer", "newest"),
    [
        (b'{"data": [{"id": "policy"}, {"id": "policy-v9"}, {"id": "policy-v10"}]}', 10),
        (b'{"data": [{"id": "policy"}, {"id": "policy.b-v9"}, {"id": "policy-vx"}]}', 0),
        (b'{"data": []}', 0),
        (b"what", None),
    ],
)
def test_the_newest_adapter_is_read_out_of_the_listed_models(answer, newest):
    """Only the policy's own count."""
    assert newest == newest_adapter(answer, "policy")


def test_all_tokens_of_a_reply_are_of_the_adapter():
    """None of them, where there are none."""
    log = SimpleNamespace(current=7, engines={}, adapter="policy")
    sent = members.EngineVersion("http://e", log).sent()
    assert (VersionSpan(7, 0, 4),) == sent.spans((VersionSpan(0, 0, 2),), 4)
    assert () == sent.spans((), 0)
