"""Engines that refuse what we write into calls: agents are served, and nothing altered counts whole."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from odradek.proxy.dialects.sampling import FORCED
from odradek.schemas.sampling import NEUTRAL, UNSENT, sampling_of
from tests.support.engines.stub_engine import StubEngine, listening

HI = [{"role": "user", "content": "x"}]
CALLS = {
    "/e/e1/v1/chat/completions": {"messages": HI},
    "/e/e1/v1/completions": {"prompt": "x"},
    "/e/e1/v1/messages": {"messages": HI, "max_tokens": 5},
    "/e/e1/v1/responses": {"input": "x"},
    "/e/e1/v1/models/m:generateContent": {"contents": [{"parts": [{"text": "x"}]}]},
    "/e/e1/v1/models/m:streamGenerateContent": {"contents": [{"parts": [{"text": "x"}]}]},
}
CHAT = next(iter(CALLS))
LEFT_OUT = {"temperature": 1.0, **NEUTRAL}
SERDE = (
    "Failed to deserialize the JSON body into the target type: unknown field `%s`, expected one of "
    "`messages`, `model`, `temperature`, `top_p`, `presence_penalty`, `frequency_penalty`, `stream`"
    " at line 1 column 99"
)
streams = pytest.mark.parametrize("stream", [False, True])
dialects = pytest.mark.parametrize("path", CALLS)


def one_by_one(*names, words="%s"):
    """An engine that names the first field that it does not know."""
    return lambda asked: next((words % name for name in names if name in asked), "")


async def call(bench, path=CHAT, **more):
    body = {**CALLS[path], **more}
    return await bench.post(path, body, token=bench.token())


def trainable(turn):
    return not turn.untrainable and sampling_of(turn.request.sampling).trainable


@streams
@dialects
async def test_an_engine_that_names_one_field_at_a_time_is_asked_until_it_names_none(
    bench, engine, path, stream
):
    """Then no call has any of them, and the turns record what was in force."""
    unknown = ("min_p", "top_k", "repetition_penalty", "return_weight_versions")
    engine.refuses = one_by_one(*unknown)
    for content in ("one", "two"):
        more = {"instructions": content} if "responses" in path else {}
        status, *_ = await call(bench, path, stream=stream, **more)
        assert 200 == status
    *tries, first, second = engine.calls
    assert 5 == len(tries)  # top_k is tried as 0, too
    left = {name: value for name, value in LEFT_OUT.items() if name not in unknown}
    for asked, turn in zip((first, second), bench.turns(), strict=True):
        assert left == {name: asked[name] for name in LEFT_OUT if name in asked}
        assert "return_weight_versions" not in asked
        assert left == {name: turn.request.sampling.get(name) for name in left}
        assert not turn.request.sampling.keys() & set(unknown)
        assert trainable(turn)


@streams
@dialects
async def test_what_an_engine_lists_as_its_own_fields_is_still_sent(bench, engine, path, stream):
    """The temperature above all."""
    engine.refuses = one_by_one("min_p", "repetition_penalty", words=SERDE)
    for _ in range(2):
        status, *_ = await call(bench, path, stream=stream)
        assert 200 == status
    left = LEFT_OUT.keys() - {"min_p", "repetition_penalty"}
    assert left == engine.calls[-1].keys() & LEFT_OUT.keys()
    assert [True, True] == [trainable(turn) for turn in bench.turns()]


@streams
@dialects
@pytest.mark.parametrize("words", ["%s", SERDE, "Unsupported parameter: '%s'"])
async def test_without_a_temperature_nothing_counts_as_whole(bench, engine, path, stream, words):
    """Nobody knows at which one the engine samples; the agent is served, and the log says so."""
    engine.refuses = one_by_one("min_p", "temperature", words=words)
    for _ in range(2):
        status, *_ = await call(bench, path, stream=stream)
        assert 200 == status
    assert "temperature" not in engine.calls[-1]
    for turn in bench.turns():
        assert UNSENT == sampling_of(turn.request.sampling).altered_by
        assert not trainable(turn)


async def test_a_clients_own_temperature_is_its_own(bench, engine):
    """An engine that takes 0.5 and not ours has sampled at 0.5."""
    engine.refuses = lambda asked: "temperature" if asked.get("temperature") == 1.0 else ""
    await call(bench)
    status, *_ = await call(bench, temperature=0.5)
    first, second = bench.turns()
    assert (200, False, True) == (status, trainable(first), trainable(second))
    assert UNSENT not in second.request.sampling


@streams
@pytest.mark.parametrize("names", [("top_k",), ("min_p", "top_k"), ("top_k", "temperature")])
async def test_calls_that_overlap_are_each_asked_again(bench, engine, names, stream):
    """The first one's refusal has changed what later calls hold, and not what this one held."""
    engine.refuses = one_by_one(*names)
    take, released = engine.take, asyncio.Event()

    async def held(request):
        asked, answer = await take(request)
        if asked["messages"][0]["content"] == "late" and asked.get("top_k") == -1:
            await released.wait()
        return asked, answer

    engine.take = held
    late = asyncio.create_task(
        call(bench, messages=[{"role": "user", "content": "late"}], stream=stream)
    )
    await bench.until(lambda: engine.calls)
    assert 200 == (await call(bench, stream=stream))[0]
    released.set()
    status, _, answer = await late
    assert 200 == status, answer
    early, later = bench.turns()
    assert early.request.sampling == later.request.sampling
    assert ("temperature" not in names) == trainable(later)
    assert not engine.calls[-1].keys() & set(names)


@asynccontextmanager
async def mapped(make, **settings):
    """A proxy whose agents' other model is another engine's, and trained on."""
    other = StubEngine()
    async with listening(other.app()) as url:
        models = {"small": {"engine": url, "trained": True}}
        async with make(models=models, **settings) as bench:
            yield bench, other


@streams
@pytest.mark.parametrize("path", [*CALLS][:4])
@pytest.mark.parametrize("refused", [("top_k",), ("min_p", "top_k"), ("temperature",)])
async def test_what_a_mapped_engine_refuses_is_its_own_affair(make, engine, path, refused, stream):
    """Its later calls are without; the policy's own are not."""
    async with mapped(make) as (bench, other):
        other.refuses = one_by_one(*refused)
        for _ in range(3):
            status, *_ = await call(bench, path, model="small", stream=stream)
            assert 200 == status
        tries = len(other.calls)
        await call(bench, path, model="policy", stream=stream)
        assert not other.calls[-1].keys() & set(refused)
        assert LEFT_OUT == {name: engine.calls[-1].get(name) for name in LEFT_OUT}
        assert tries == 3 + len(refused) + ("top_k" in refused)
        expected = [refused != ("temperature",)] * 3 + [True]
        assert expected == [trainable(turn) for turn in bench.turns()]


async def test_what_the_policys_engine_refuses_a_mapped_one_gets(make, engine):
    """Each engine is asked for all that it has not refused itself."""
    async with mapped(make) as (bench, other):
        engine.refuses = one_by_one("min_p")
        await call(bench, model="policy")
        await call(bench, model="small")
        assert LEFT_OUT == {name: other.calls[-1].get(name) for name in LEFT_OUT}


@pytest.mark.parametrize("path", [*CALLS][:2])
@pytest.mark.parametrize("name", FORCED)
@streams
async def test_an_engine_that_refuses_to_tell_its_tokens_serves_agents(
    bench, engine, path, name, stream
):
    """Their turns say what they lack; versions are not all that a turn needs."""
    engine.refuses = one_by_one(name, words=SERDE)
    why = {"logprobs": "no_logprobs", "return_token_ids": "no_token_ids"}.get(name, "")
    for _ in range(2):
        status, _, answer = await call(bench, path, stream=stream)
        assert 200 == status, answer
    assert 3 == len(engine.calls)
    if path == CHAT:
        assert [why, why] == [turn.untrainable for turn in bench.turns()]


async def test_an_agents_own_wish_for_log_probabilities_is_not_left_out(bench, engine):
    """The refusal is the answer to it."""
    engine.refuses = one_by_one("logprobs")
    status, _, answer = await call(bench, logprobs=True)
    assert (400, 1) == (status, len(engine.calls))
    assert b"cannot read: logprobs" in answer


async def test_a_clients_mistake_is_told_when_ours_is_out_of_the_way(bench, engine):
    """Its own field is named last; nothing is learned of a call that nobody took."""
    engine.refuses = one_by_one("min_p", "colour")
    status, _, answer = await call(bench, colour="red")
    assert (400, 2) == (status, len(engine.calls))
    assert b"cannot read: colour" in answer
    assert 200 == (await call(bench))[0]
    assert ["min_p" in asked for asked in engine.calls] == [True, False, True, False]


ODD = [
    ({"top_p": 0.5}, "temperature"), ({"top_p": 0.5}, "min_p"), ({"use_beam_search": True}, "top_p"),
    ({"use_beam_search": True}, "logprobs"), ({"best_of": 3}, "return_token_ids"),
    ({"prompt_logprobs": 1}, "logprobs"), ({"echo": True}, "logprobs"), ({"colour": "red"}, "min_p"),
]  # fmt: skip


@streams
@pytest.mark.parametrize(("own", "name"), ODD)
async def test_what_a_client_asks_for_besides_is_no_reason_for_others_to_lack_a_field(
    bench, engine, own, name, stream
):
    """The engine refuses ours beside it only: that call goes without, and no other one."""
    (field,) = own
    engine.refuses = lambda asked: (
        f"`{field}` and `{name}` cannot be used together"
        if asked.get(field) == own[field] and name in asked
        else ""
    )
    for more in (own, {}, own):
        assert 200 == (await call(bench, stream=stream, **more))[0]
    first, again, plain, last, _ = engine.calls
    assert [True, False, True, True] == [name in asked for asked in (first, again, plain, last)]
    assert LEFT_OUT == {one: plain.get(one) for one in LEFT_OUT}
    assert [False, True, False] == [trainable(turn) for turn in bench.turns()]


async def test_null_is_no_wish_of_a_client(bench, engine):
    """An engine that refuses a field refuses its null."""
    engine.refuses = one_by_one("min_p")
    for _ in range(2):
        assert 200 == (await call(bench, min_p=None))[0]
    assert "min_p" not in bench.turns()[-1].request.sampling


async def test_what_answers_after_a_broken_connection_is_asked_for_all(bench, engine):
    """It may be another engine, whose defaults would hold for what is left out."""
    engine.refuses = one_by_one("min_p")
    await call(bench)
    engine.refuses, engine.mode = one_by_one(), "drop"
    await call(bench)
    engine.mode = "ok"
    await call(bench)
    assert LEFT_OUT == {name: engine.calls[-1].get(name) for name in LEFT_OUT}
    assert [LEFT_OUT] == [turn.request.sampling for turn in bench.turns()[2:]]


async def test_a_salt_that_is_refused_among_other_fields_is_left_out_like_them(bench, engine):
    """One refusal at a time, whoever wrote the field."""
    engine.refuses = one_by_one("min_p", "cache_salt", "top_k")
    for _ in range(2):
        assert 200 == (await call(bench))[0]
    assert not {"min_p", "cache_salt", "top_k"} & engine.calls[-1].keys()


async def test_force_is_no_reason_to_be_refused(make, engine):
    """The client's field gives way, and ours is left out."""
    engine.refuses = one_by_one("min_p", "temperature")
    async with make(sampling="force") as bench:
        for _ in range(2):
            status, *_ = await call(bench, min_p=0.2, temperature=0.3)
            assert 200 == status
        assert [UNSENT] * 2 == [
            sampling_of(turn.request.sampling).altered_by for turn in bench.turns()
        ]


async def test_an_engine_that_never_has_enough_is_not_asked_for_ever(bench, engine):
    """Each refusal costs a field, and there are ten."""
    engine.refuses = lambda asked: next((n for n in asked if n not in ("call", "messages")), "x")
    status, *_ = await call(bench)
    assert 400 == status
    assert len(engine.calls) <= 25
