"""SGLang behind the proxy, as its documentation has it: tests know a stub, and no real server."""

import asyncio
import logging
from contextlib import asynccontextmanager
from types import SimpleNamespace

import msgspec
import pytest
from aiohttp import ClientSession, web
from openai import APIStatusError

from odradek.proxy.engines.adapter import NATIVE, EngineAdapter
from odradek.proxy.engines.sglang import SglangAdapter, recognized
from odradek.proxy.engines.vllm import VLLM
from odradek.proxy.errors import CapabilityMissing
from odradek.proxy.wire import reply as replies
from odradek.schemas.arrays import unpack_floats, unpack_ids
from odradek.schemas.events import VersionSpan
from odradek.schemas.http import engine as surface
from tests.support.engines.sglang_engine import SglangStub
from tests.support.engines.stub_engine import END, StubEngine, listening, prompt_ids, tool_call

HI = [{"role": "user", "content": "hi"}]


@pytest.fixture
def before(make):
    """A proxy that asks what its engine is, before a stub; `before(spans=False, ...)`."""

    @asynccontextmanager
    async def start(stub=None, versions=None, settings=None, **options):
        stub = stub or SglangStub(**options)
        async with listening(stub.app()) as url:
            stub.url = url
            async with make(
                engine_url=url, proves=True, versions=versions, **(settings or {})
            ) as bench:
                bench.stub = stub
                yield bench

    return start


def said(turn):
    """Its completion's ids and log probabilities."""
    return (
        unpack_ids(turn.completion.ids).tolist(),
        unpack_floats(turn.completion.logprobs).tolist(),
    )


def check_trainable(turn, text):
    """A turn has the engine's own ids and log probabilities, and nothing stands against it."""
    ids = [*text.encode(), END]
    assert ("", "") == (turn.untrainable, turn.error)
    assert (ids, pytest.approx([-i / 1000 for i in ids])) == said(turn)
    assert prompt_ids(HI) == unpack_ids(turn.prompt.ids).tolist()


async def test_a_chat_becomes_a_turn_with_trainable_tokens(before):
    """Ids of prompt and reply, log probabilities, versions and temperature: all the engine's own."""
    async with before() as bench:
        reply = await bench.ask()
        (turn,) = bench.turns()
        check_trainable(turn, reply.choices[0].message.content)
        n = len(said(turn)[0])
        assert ((VersionSpan(0, 0, n),), "engine") == (turn.versions, turn.versions_from)
        assert 1.0 == msgspec.json.decode(msgspec.json.encode(turn.request.sampling))["temperature"]
        (asked,) = bench.stub.calls
        assert asked["return_token_ids"] and asked["logprobs"]
        assert "return_weight_versions" not in asked


async def test_a_stream_comes_in_one_piece_and_its_turn_is_the_same(before):
    """The engine is asked for a whole reply; the agent gets chunks, a usage and an end."""
    async with before() as bench:
        stream = await bench.agent().chat.completions.create(
            model="policy", messages=HI, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        (turn,) = bench.turns()
        check_trainable(turn, text)
        assert turn.streamed
        assert "stop" in [c.choices[0].finish_reason for c in chunks if c.choices]
        assert chunks[-1].usage.completion_tokens == len(said(turn)[0])
        assert [False] == [asked["stream"] for asked in bench.stub.calls]


async def test_tool_calls_come_as_the_engine_parsed_them(before):
    """SGLang's own parser makes them; the ids are of what was sampled."""
    async with before() as bench:
        bench.stub.script = [{"tool_calls": [tool_call("look", '{"x":1}')]}]
        reply = await bench.ask()
        assert "look" == reply.choices[0].message.tool_calls[0].function.name
        (turn,) = bench.turns()
        assert ("", "tool_calls") == (turn.untrainable, turn.reply.finish_reason)


@pytest.mark.parametrize("stream", [False, True])
async def test_text_completions_are_trainable_too(before, stream):
    """Whole or as a stream."""
    async with before() as bench:
        made = await bench.agent().completions.create(model="policy", prompt="ab", stream=stream)
        if stream:
            assert [chunk async for chunk in made]
        (turn,) = bench.turns()
        assert ("", [97, 98]) == (turn.untrainable, unpack_ids(turn.prompt.ids).tolist())
        assert END == said(turn)[0][-1]


async def test_a_reply_over_a_swap_has_both_versions(before):
    """Newer ones say which version sampled which token."""
    async with before() as bench:
        await bench.ask("so that it is known")
        bench.stub.label = "3"
        bench.stub.resumed.clear()
        bench.stub.arrived.clear()
        asking = asyncio.create_task(bench.ask())
        await bench.stub.arrived.wait()
        bench.stub.label = "4"
        bench.stub.resumed.set()
        await asking
        turn = bench.turns()[-1]
        n = len(said(turn)[0])
        assert (VersionSpan(3, 0, 1), VersionSpan(4, 1, n)) == turn.versions


@pytest.mark.parametrize(
    ("label", "expected"), [("default", (0, "engine")), ("7", (6, "inferred"))]
)
async def test_one_name_for_a_whole_reply_never_makes_a_token_newer_than_it_is(
    before, label, expected
):
    """A name that no trainer gave is of all tokens; of a number the older version counts."""
    log = SimpleNamespace(current=6, engines={}, adapter="")
    async with before(spans=False, versions=log) as bench:
        bench.stub.label = label
        await bench.ask()
        (turn,) = bench.turns()
        assert expected == (turn.versions[0].version, turn.versions_from)


async def test_what_it_lacks_is_named_at_start(before, caplog):
    """Before any agent calls: what is lacking, what it costs, what to do."""
    with caplog.at_level(logging.WARNING, "odradek.proxy"):
        async with before() as bench:
            await bench.until(lambda: "counting" in caplog.text)
    lines = [line for line in caplog.messages if "is SGLang, which has no" in line]
    assert ["streams", "rendering", "counting"] == [
        line.partition("has no ")[2].partition(":")[0] for line in lines
    ]
    assert all(line.count("; ") == 1 for line in lines)
    assert "gives no token ids" not in caplog.text


async def test_one_without_token_ids_is_named_at_start_too(before, caplog):
    """Its replies are recorded, none is trained on, and the line says which SGLang has them."""
    async with before(ids=False) as bench:
        await bench.until(lambda: "gives no token ids" in caplog.text)
        assert "return_token_ids" in caplog.text
        await bench.ask()
        (turn,) = bench.turns()
        assert "no_token_ids" == turn.untrainable


async def test_a_count_of_tokens_is_a_capability_error(before):
    """501 with what to do, and no call of the engine."""
    async with before() as bench:
        body = {"model": "policy", "messages": HI}
        status, _, answer = await bench.post(
            "/e/e1/v1/messages/count_tokens", body, token=bench.token()
        )
        assert (501, True) == (status, b"SGLang has no counting" in answer)
        assert [] == bench.stub.calls


async def test_a_prompt_that_should_be_carried_on_is_rendered_anew(before):
    """Under `bridge`: the turn says why, and stays trainable."""
    async with before(settings={"continuation": "bridge"}) as bench:
        reply = await bench.ask()
        history = [*HI, {"role": "assistant", "content": reply.choices[0].message.content}]
        await bench.ask(messages=[*history, {"role": "user", "content": "more"}])
        _, turn = bench.turns()
        assert ("render", "not_rendered", "") == (
            turn.continuation.mode,
            turn.continuation.reason,
            turn.untrainable,
        )


async def test_an_error_keeps_its_words_and_status(before):
    """SGLang's errors have their message at the top."""
    async with before() as bench:
        bench.stub.mode = "error"
        with pytest.raises(APIStatusError, match="the prompt is too long") as raised:
            await bench.ask()
        assert 400 == raised.value.status_code
        (turn,) = bench.turns()
        assert "the prompt is too long" in turn.error


async def test_an_aborted_reply_is_an_error(before):
    """What was cut at a swap by hand is not what the policy would have said."""
    async with before() as bench:
        bench.stub.finish = "abort"
        with pytest.raises(APIStatusError):
            await bench.ask()
        (turn,) = bench.turns()
        assert "abort" in turn.error


async def test_it_is_ready_while_it_is_paused(before):
    """Its own health samples a token, so it is asked for its model's info."""
    async with before() as bench:
        await bench.ask()
        bench.stub.paused = True
        assert 200 == (await bench.proxy.engine.get(surface.HEALTH.path))[0]


async def test_an_older_one_is_recognized_by_the_older_name(before):
    """`/get_model_info`."""
    async with before(old=True) as bench:
        reply = await bench.ask()
        check_trainable(bench.turns()[0], reply.choices[0].message.content)


async def test_another_engine_at_the_same_address_is_asked_what_it_is(make):
    """A connection that broke may have been its last."""
    stub, plain = SglangStub(), StubEngine()

    async def either(request):
        engine = plain if stub.old else stub
        if request.path.endswith("model_info") and engine is plain:
            raise web.HTTPNotFound
        return await routes[request.path](engine, request)

    routes = {
        "/v1/chat/completions": lambda engine, request: engine.chat(request),
        "/v1/models": lambda engine, request: engine.models(request),
        "/model_info": lambda engine, request: engine.info(request),
        "/get_model_info": lambda engine, request: engine.info(request),
    }
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", either)
    async with listening(app) as url, make(engine_url=url, proves=True) as bench:
        await bench.ask()
        assert "SGLang" == _engine(bench).adapter.name
        stub.mode = "drop"
        with pytest.raises(APIStatusError):
            await bench.ask()
        stub.old = True
        await bench.ask()
        assert "vLLM" == _engine(bench).adapter.name
        assert "" == bench.turns()[-1].untrainable


def _engine(bench):
    (member,) = bench.proxy.engine._members.values()
    return member.engine


async def test_an_engine_is_asked_once_what_it_is(before):
    """However many calls it gets, and however many of them come at once."""
    async with before() as bench:
        await bench.ask()
        infos = bench.stub.infos
        await asyncio.gather(*(bench.ask(str(n)) for n in range(8)))
        assert infos == bench.stub.infos


@pytest.mark.parametrize(
    ("adapter", "stub"),
    [(NATIVE, StubEngine), (VLLM, StubEngine), (SglangAdapter(), SglangStub)],
    ids=["native", "vllm", "sglang"],
)
async def test_every_adapter_brings_back_what_a_turn_needs(adapter: EngineAdapter, stub):
    """One suite for all: a request in the surface's words, and a reply in them."""
    body = {"model": "m", "messages": HI, "logprobs": True, "return_token_ids": True,
            "return_weight_versions": True, "stream": False}  # fmt: skip
    made, route = stub(), surface.CHAT.path
    async with listening(made.app()) as url, ClientSession() as session:
        sent = adapter.request(route, msgspec.json.encode(body))
        headers = {"Content-Type": "application/json"}
        async with session.post(url + adapter.path(route), data=sent, headers=headers) as answer:
            (captured,) = replies.whole(adapter.reply(route, await answer.read()))
    assert ("", "", "stop") == (captured.untrainable, captured.error, captured.reply.finish_reason)
    assert prompt_ids(HI) == unpack_ids(captured.prompt).tolist()
    assert captured.versions and captured.completion.logprobs
    assert adapter.path(surface.HEALTH.path) and adapter.path(surface.VERSION.path)
    for lack in adapter.lacks:
        assert lack.capability in surface.CAPABILITIES


@pytest.mark.parametrize("route", [surface.RENDER, surface.COUNT], ids=lambda route: route.path)
def test_a_route_that_it_lacks_is_refused(route):
    """With the capability's name, its cost and what to do."""
    with pytest.raises(CapabilityMissing, match=f"SGLang has no {route.capability}: .*; "):
        SglangAdapter().path(route.path)


def test_a_stop_string_is_no_end_token():
    """`matched_stop` has its text, where the surface has `stop_reason`."""
    body = {
        "choices": [{"index": 0, "message": {}, "finish_reason": "stop", "matched_stop": "END"}]
    }
    value = msgspec.json.decode(SglangAdapter().reply("", msgspec.json.encode(body)))
    assert "END" == value["choices"][0]["stop_reason"]


@pytest.mark.parametrize(
    "body", [b"", b"no json", b"[]", b"{}", b'{"choices":3}', b'{"choices":[1]}', b"\xff"]
)
def test_a_reply_that_cannot_be_read_is_left_as_it_is(body):
    """What is wrong with it, the proxy says as of any engine."""
    assert body == SglangAdapter().reply("", body)


@pytest.mark.parametrize(
    "answer",
    [b"", b"{}", b"[]", b'{"weight_version":"1"}', b'{"model_path":"m"}', b'{"model_path":1}'],
)
def test_no_other_engine_is_taken_for_it(answer):
    """Its model's info has a path, and whether it generates."""
    assert recognized("/model_info", answer) is None
    assert recognized("/model_info", b'{"model_path":"m","is_generation":true}') is not None


async def test_a_call_names_its_adapter_in_its_own_word(before):
    """Its tokens are of that version; one that it has not loaded is looked up, and none is lost."""
    log = SimpleNamespace(current=7, engines={}, adapter="policy")
    async with before(versions=log, settings={"engine_wait_s": 0.05}) as bench:
        bench.stub.adapters = {"policy-v7": "folder"}
        await bench.ask()
        bench.stub.adapters = {"policy-v6": "folder"}
        await bench.ask("again")
        assert ["policy-v7", "policy-v6"] == [call["lora_path"] for call in bench.stub.calls]
        assert {"policy"} == {call["model"] for call in bench.stub.calls}
        assert [7, 6] == [turn.versions[0].version for turn in bench.turns()]
