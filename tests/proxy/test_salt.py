"""Each call carries a salt for the version that its engine serves, and the turn records it."""

import asyncio
import json
from types import SimpleNamespace

import pytest
from aiohttp import web

from odradek.proxy.dialects import cache_salt
from odradek.proxy.dialects.chat import CHAT
from odradek.proxy.dialects.dialect import RequestRules
from odradek.proxy.errors import BadRequest
from odradek.schemas.events import VersionSpan
from tests.support.engines.stub_engine import StubEngine, listening

HI = [{"role": "user", "content": "hi"}]
CHATS, TEXTS = "/v1/chat/completions", "/v1/completions"
CALLS = {
    "chat": (CHATS, {"messages": HI}),
    "chat, two choices": (CHATS, {"messages": HI, "n": 2}),
    "chat, all asked for": (
        CHATS,
        {
            "messages": HI,
            "logprobs": True,
            "return_token_ids": True,
            "return_weight_versions": True,
        },
    ),
    "completions of text": (TEXTS, {"prompt": "once"}),
    "completions of texts": (TEXTS, {"prompt": ["once", "twice"]}),
    "completions of ids": (TEXTS, {"prompt": [5, 6, 7]}),
    "completions of lists of ids": (TEXTS, {"prompt": [[5, 6], [7]], "n": 2}),
    "responses": ("/v1/responses", {"input": "hi"}),
    "messages": ("/v1/messages", {"messages": HI, "max_tokens": 99}),
}
"""A call of each kind that samples."""
NAMING = {
    "OpenAI's words": (400, {"error": {"message": "Unrecognized request argument: cache_salt"}}),
    "pydantic's": (
        422,
        {"detail": [{"type": "extra_forbidden", "loc": ["body", "cache_salt"], "msg": "Extra"}]},
    ),
    "a gateway's": (403, {"message": "field cache_salt is not allowed"}),
    "plain text": (400, "cache_salt is not supported"),
}
"""How engines refuse a field that they do not have: status and body."""


class Strict(StubEngine):
    """An engine that refuses, repeats, or fails over what it is asked."""

    refusal = NAMING["OpenAI's words"]

    async def take(self, request):
        asked, answer = await super().take(request)
        if self.mode == "no_salt" and "cache_salt" in asked:
            answer = self.refused(*self.refusal)
        if self.mode in {"names one", "names all"}:
            unknown = [name for name in ("min_p", "cache_salt") if name in asked]
            named = unknown if self.mode == "names all" else unknown[:1]
            if named:
                answer = self.refused(400, {"error": {"message": f"unknown fields: {named}"}})
        if self.mode in {"repeats 422", "repeats 500"}:
            told = {"error": {"message": "no such model", "input": self.calls[-1]}}
            answer = self.refused(int(self.mode[-3:]), told)
        return asked, answer

    def refused(self, status, body):
        if isinstance(body, str):
            return web.Response(status=status, text=body)
        return web.json_response(body, status=status)

    def repeated(self, asked):
        return {"cache_salt": asked["cache_salt"]} if self.mode == "echo" else {}

    def reply(self, asked):
        return super().reply(asked) | self.repeated(asked)

    def text_reply(self, asked):
        return super().text_reply(asked) | self.repeated(asked)

    def chunks(self, asked):
        yield from ({**chunk, **self.repeated(asked)} for chunk in super().chunks(asked))
        if self.mode == "repeats in stream":
            yield {"error": {"message": f"bad: {self.calls[-1]}"}}

    def text_chunks(self, asked):
        yield from ({**chunk, **self.repeated(asked)} for chunk in super().text_chunks(asked))


@pytest.fixture
async def strict(make):
    """Such an engine, before it a proxy whose log has announced version 7."""
    stub = Strict()
    async with listening(stub.app()) as url:
        stub.url = url
        versions = SimpleNamespace(current=7, engines={}, adapter="")
        async with make(engine_url=url, versions=versions) as bench:
            bench.engine, bench.versions = stub, versions
            yield bench


async def called(bench, kind="chat", *, stream=False, **more):
    """Make a call; gives status and body."""
    path, body = CALLS[kind]
    status, _, answer = await bench.post(
        "/e/e1" + path, {"model": "m", **body, "stream": stream, **more}, token=bench.token()
    )
    return status, answer


def salts(bench):
    return [asked.get("cache_salt") for asked in bench.engine.calls]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", CALLS)
async def test_every_call_is_salted_with_the_version_that_its_engine_serves(strict, kind, stream):
    """In each dialect, whatever the prompt is; each of its turns records the version."""
    status, _ = await called(strict, kind, stream=stream)
    assert 200 == status
    assert ["7"] == salts(strict)
    assert {7} == {turn.cache_salt for turn in strict.turns()}
    assert {""} == {turn.untrainable or turn.error for turn in strict.turns()}


async def test_calls_between_swap_and_announcement_are_salted_by_what_is_known_of_the_engine(
    strict,
):
    """The old salt until the engine has said the new version itself, from then on the new one."""
    strict.engine.version = 8
    for _ in range(2):
        await called(strict)
    assert ["7", "8"] == salts(strict)
    strict.versions.current = 8
    await called(strict)
    assert ["7", "8", "8"] == salts(strict)
    assert [7, 8, 8] == [turn.cache_salt for turn in strict.turns()]
    assert [8, 8, 8] == [turn.versions[0].version for turn in strict.turns()]


async def test_an_engine_that_is_behind_is_salted_by_its_own_version(strict):
    """A newer salt would name what old weights compute; the first reply says better."""
    strict.engine.version = 5
    for _ in range(2):
        await called(strict)
    assert ["7", "5"] == salts(strict)


async def test_without_a_policy_in_the_log_the_salt_is_that_of_version_0(make, engine):
    """Nobody has named the engine's weights: whatever is announced later has another salt."""
    engine.mode = "no_versions"
    async with make() as bench:
        await bench.ask()
        assert ["0"] == salts(bench)
        assert [(0, ())] == [(turn.cache_salt, turn.versions) for turn in bench.turns()]


async def test_a_policy_that_names_engines_salts_each_with_its_own_version(strict):
    """One that did not take the newest weights keeps the salt of those that it has."""
    strict.versions.current, strict.versions.engines = 9, {strict.engine.url: 6}
    strict.engine.version = 6
    strict.engine.mode = "no_versions"
    await called(strict)
    assert ["6"] == salts(strict)
    (turn,) = strict.turns()
    assert (6, VersionSpan(6, 0, turn.versions[0].end)) == (turn.cache_salt, turn.versions[0])


@pytest.mark.parametrize("kind", CALLS)
async def test_an_agents_own_salt_is_combined_with_ours(strict, kind):
    """Equal ones share a cache within a version; none is another's, a version's, or shown."""
    for own in ("a", "a", "b", "7", "7.a", None):
        await called(strict, kind, cache_salt=own)
    first, again, other, seven, dotted, none = salts(strict)
    assert first == again
    assert 5 == len({first, other, seven, dotted, none})
    assert "7" == none
    strict.versions.current = strict.engine.version = 8
    await called(strict, kind)  # the engine says that it has the new weights
    await called(strict, kind, cache_salt="a")
    assert salts(strict)[-1] not in {first, other, seven, dotted, "8"}
    assert {7, 8} == {turn.cache_salt for turn in strict.turns()}


async def test_a_tokens_sampling_may_set_a_salt_too(strict):
    """It is combined like an agent's own."""
    agent = strict.agent(sampling={"cache_salt": "ours"})
    await agent.chat.completions.create(model="m", messages=HI)
    assert [cache_salt.of(7, cache_salt.take_own({"cache_salt": b'"ours"'}))] == salts(strict)


@pytest.mark.parametrize("bad", ["", 5, {}, ["x"], True])
async def test_a_salt_that_is_no_text_is_refused(strict, bad):
    """As vLLM does, and before anything is sampled."""
    status, answer = await called(strict, cache_salt=bad)
    assert 400 == status
    assert "cache_salt" == json.loads(answer)["error"]["param"]
    assert [] == strict.engine.calls
    with pytest.raises(BadRequest):
        CHAT.parse(json.dumps({"messages": HI, "cache_salt": bad}).encode(), RequestRules())


@pytest.mark.parametrize("own", [None, "mine"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", CALLS)
async def test_no_salt_is_shown_where_an_engine_repeats_its_request(strict, kind, stream, own):
    """Neither ours nor the agent's own."""
    strict.engine.mode = "echo"
    status, answer = await called(strict, kind, stream=stream, cache_salt=own)
    assert 200 == status
    assert b"cache_salt" not in answer
    assert salts(strict)[0].encode() not in answer or own is None


@pytest.mark.parametrize("mode", ["repeats 422", "repeats 500", "repeats in stream"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["chat", "responses", "messages"])
async def test_no_salt_is_shown_where_an_engine_repeats_it_in_an_error(strict, kind, stream, mode):
    """The agent gets an error of its dialect, and the turn keeps the engine's words."""
    strict.engine.mode = mode
    _, answer = await called(strict, kind, stream=stream, cache_salt="mine")
    assert b"cache_salt" not in answer
    assert all(one.encode() not in answer for one in salts(strict) if one)
    if stream or mode != "repeats in stream":
        assert b"error" in answer
        assert strict.turns()[0].error


async def test_an_error_that_only_repeats_the_request_does_not_end_the_salting(strict):
    """Else an agent could end it, by a request that its engine refuses word for word."""
    strict.engine.mode = "repeats 422"
    await called(strict)
    strict.engine.mode = "ok"
    strict.engine.calls.clear()
    await called(strict)
    assert ["7"] == salts(strict)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("refusal", NAMING)
@pytest.mark.parametrize("kind", ["chat", "completions of ids", "responses", "messages"])
async def test_an_engine_without_the_field_gets_no_salt(strict, kind, refusal, stream):
    """The agent notices nothing; from then on nothing is asked twice, and no turn has a salt."""
    strict.engine.mode, strict.engine.refusal = "no_salt", NAMING[refusal]
    for _ in range(2):
        status, _ = await called(strict, kind, stream=stream)
        assert 200 == status
    assert ["7", None, None] == salts(strict)
    assert [None, None] == [turn.cache_salt for turn in strict.turns()]
    assert [7, 7] == [turn.versions[0].version for turn in strict.turns()]


@pytest.mark.parametrize("mode", ["names one", "names all"])
async def test_an_engine_that_takes_neither_salt_nor_sampling_is_found_out_in_one_call(
    strict, mode
):
    """Whether it names all that it does not know, or one at a time."""
    strict.engine.mode = mode
    assert 200 == (await called(strict))[0]
    strict.engine.calls.clear()
    assert 200 == (await called(strict))[0]
    (asked,) = strict.engine.calls
    assert not {"min_p", "cache_salt"} & asked.keys()
    assert [None, None] == [turn.cache_salt for turn in strict.turns()]


async def test_an_engine_that_was_away_may_have_the_field_again(strict):
    """It may be a newer one."""
    strict.engine.mode = "no_salt"
    await called(strict)
    strict.engine.mode = "drop"
    await called(strict)
    strict.engine.mode = "ok"
    await called(strict)
    assert ["7", None, None, "7"] == salts(strict)


@pytest.mark.parametrize("mode", ["bridge", "render"])
async def test_what_computes_no_keys_and_values_has_no_salt(make, engine, mode):
    """Renderings and counts of tokens; the call itself is salted, its ids carried on or not."""
    versions = SimpleNamespace(current=7, engines={}, adapter="")
    async with make(versions=versions, continuation=mode) as bench:
        first = await bench.ask()
        said = {"role": "assistant", "content": first.choices[0].message.content}
        more = [*HI, said, {"role": "user", "content": "more"}]
        await bench.ask(messages=more, extra_body={"cache_salt": "mine"})
        body = {"model": "m", "messages": more, "cache_salt": "mine"}
        await bench.post("/e/e1/v1/messages/count_tokens", body, token=bench.token())
    assert [False, True] == ["." in one for one in salts(bench)]
    assert (mode == "bridge") == bool(engine.calls[1].get("kv_transfer_params"))
    for asked in (*engine.rendered, *engine.tokenized):
        assert "cache_salt" not in asked


async def test_a_call_that_moves_to_another_engine_is_salted_for_that_one(make):
    """Each engine has its own version."""
    one, other = StubEngine(), StubEngine()
    one.version, other.version = 7, 6
    async with listening(one.app()) as a, listening(other.app()) as b:
        named = SimpleNamespace(current=7, engines={a: 7, b: 6}, adapter="")
        async with make(engine_url=f"{a},{b}", versions=named) as bench:
            one.mode = "drop"
            await asyncio.gather(*(bench.ask(episode=f"e{n}") for n in range(4)))
            (turn,) = bench.turns("e0")
    assert {"6"} == {asked["cache_salt"] for asked in other.calls}
    assert (6, 6) == (turn.cache_salt, turn.versions[0].version)
