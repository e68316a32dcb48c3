"""Calls beside the task: recorded, counted, part of the conversation, and never trained on."""

import json
from contextlib import asynccontextmanager

import pytest

from odradek.proxy.errors import ProxyMisconfigured
from odradek.proxy.settings import ProxySettings
from odradek.schemas import codec
from odradek.schemas.events import EpisodeOpened, EpisodeSealed, Turn
from odradek.streams.stages.episode import OpenEpisode
from odradek.streams.stages.tokens import episode_of
from tests.support.engines.stub_engine import StubEngine, listening

HI = [{"role": "user", "content": "hi"}]
FUNCTION = {"name": "look", "parameters": {"type": "object"}}
TOOLS = {
    "/chat/completions": [{"type": "function", "function": FUNCTION}],
    "/messages": [{"name": "look", "input_schema": {"type": "object"}}],
    "/responses": [{"type": "function", **FUNCTION}],
}
BODIES = {
    "/chat/completions": {"messages": HI},
    "/messages": {"messages": HI, "max_tokens": 9},
    "/responses": {"input": "hi"},
}
PATHS = list(BODIES)


async def ask(bench, path="/chat/completions", headers=None, model="policy", **more):
    body = {"model": model, **BODIES.get(path, {"prompt": "x"}), **more}
    status, _, answer = await bench.post(
        f"/e/e1/v1{path}", body, token=bench.token(), headers=headers
    )
    assert 200 == status, answer
    return answer


def why(bench):
    return [turn.untrainable for turn in bench.turns()]


def left_out(bench):
    """What the assembler leaves out of the episode, and what its conversation holds."""
    story = OpenEpisode(
        EpisodeOpened(episode_id="e1", task_id="t1", agent="a", sample=0, group_size=1),
        0,
        0.0,
        None,
    )
    for turn in bench.turns():
        story.add(codec.decode(codec.encode(turn), Turn))
    story.seal(
        EpisodeSealed(episode_id="e1", writer=bench.proxy.writer, n_turns=len(bench.turns())), 1.0
    )
    said = [bool(one.reply) for one in story.conversation().turns]
    names = {turn.turn_id: place for place, turn in enumerate(bench.turns())}
    return {names[one]: reason for one, reason in episode_of(story).untrained_turns.items()}, said


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [*PATHS, "/completions"])
async def test_a_mapped_name_is_asked_of_the_policy_and_not_trained_on(make, engine, path, stream):
    """The engine knows one model only; the turn has its tokens, and is counted."""
    async with make(models={"small": {}, "mine": {"trained": True}}) as bench:
        token = bench.token(model="policy")
        for model in ("policy", "small", "mine", "other"):
            body = {"model": model, **BODIES.get(path, {"prompt": "x"}), "stream": stream}
            status, _, _ = await bench.post(f"/e/e1/v1{path}", body, token=token)
            assert 200 == status
        assert ["policy"] * 4 == [call["model"] for call in engine.calls]
        assert ["", "side_call", "", ""] == why(bench)
        assert bench.turns()[1].completion.logprobs
        assert ({1: "side_call"}, [True] * 4) == left_out(bench)
        assert 1 == bench.proxy.calls.side_calls.count


@asynccontextmanager
async def vendor(make, *, proves=False, without_tools=False, **mapped):
    """A proxy whose agents' small model is another engine's."""
    engine = StubEngine()
    async with listening(engine.app()) as url:
        engine.url = url
        models = {"small": {"engine": url, **mapped}}
        async with make(
            models=models, proves=proves, side_calls_without_tools=without_tools
        ) as bench:
            yield bench, engine


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [*PATHS, "/completions"])
async def test_a_name_of_another_engine_goes_there_as_it_came(
    make, engine, monkeypatch, path, stream
):
    """Its own key, its own model, and no field that only vLLM knows."""
    monkeypatch.setenv("VENDOR_KEY", "sesame")
    async with vendor(make, model="big-1", key_env="VENDOR_KEY") as (bench, other):
        answer = await ask(bench, path, model="small", stream=stream)
        assert answer
        await ask(bench, path, stream=stream)
        (call,), (own,) = other.calls, engine.calls
        assert ("big-1", "policy") == (call["model"], own["model"])
        assert "Bearer sesame" == other.headers[0]["Authorization"]
        assert "Authorization" not in engine.headers[0]
        sent = {"model", "messages", "prompt", "stream", "stream_options", "max_tokens"}
        assert set() == call.keys() - sent
        assert {"return_token_ids", "cache_salt", "temperature"} <= own.keys()
        assert ["side_call", ""] == why(bench)
        assert ["", ""] == [turn.error for turn in bench.turns()]
        assert "big-1" == bench.turns()[0].model


async def test_what_another_engine_answers_reaches_the_agent_as_it_is(make):
    """Log probabilities, ids: nothing was asked for, so nothing is taken out."""
    async with vendor(make) as (bench, other):
        ours = json.loads(await ask(bench, model="small", logprobs=True))
        body = {"model": "small", "messages": HI, "logprobs": True}
        other.calls.clear()
        bench.url = other.url
        _, _, theirs = await bench.post("/v1/chat/completions", body)
        assert json.loads(theirs) == ours
        assert ours["choices"][0]["logprobs"]["content"]


async def test_another_engines_name_may_be_trained_on(make):
    """Then its turns hold its tokens, and versions that it names itself."""
    async with vendor(make, trained=True) as (bench, other):
        await ask(bench, model="small")
        (turn,) = bench.turns()
        assert ("", "engine") == (turn.untrainable, turn.versions_from)
        assert "cache_salt" not in other.calls[0]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [*PATHS, "/completions"])
@pytest.mark.parametrize(("tops", "warm", "cool"), [
    ("processed", "", ""), ("raw", "logprobs_mode", "logprobs_mode"),
    ("logits", "logprobs_mode", "logprobs_mode"), ("none", "", "logprobs_mode"),
])  # fmt: skip
async def test_another_engine_has_to_prove_its_log_probabilities_if_it_is_trained_on(
    make, engine, path, stream, tops, warm, cool
):
    """Those of the policy's own engine say nothing of it."""
    async with vendor(make, trained=True, model="m2", proves=True) as (bench, other):
        other.tops = tops
        for temperature in (1.0, 0.7):
            await ask(bench, path, model="small", temperature=temperature, stream=stream)
        await ask(bench, path)
        assert [warm, cool, ""] == why(bench)
        assert {"m2"} == {asked["model"] for asked in other.probes}


async def test_another_engine_that_nobody_trains_on_is_not_asked(make):
    """A vendor counts each question."""
    async with vendor(make, proves=True) as (bench, other):
        await ask(bench, model="small")
        await bench.until(lambda: bench.proxy.engine.proved)
        assert [] == other.probes


async def test_another_engine_is_asked_before_its_first_call(make):
    """As the policy's own is."""
    async with vendor(make, trained=True, proves=True) as (bench, other):
        await bench.until(lambda: all(pool.proved for pool in bench.proxy.pools))
        assert (2, 0) == (len(other.probes), len(other.calls))


async def test_a_token_without_a_model_leaves_the_policys_name(make, engine):
    """That is what its engine serves."""
    async with make(models={"small": {}, "tiny": {"model": "lora-2"}}, policy="p3") as bench:
        await ask(bench, model="small")
        await ask(bench, model="tiny")
        assert ["p3", "lora-2"] == [call["model"] for call in engine.calls]


async def test_tokens_of_a_mapped_name_are_counted_where_it_goes(make, engine):
    """Other engines have other tokens."""
    async with vendor(make) as (bench, other):
        for model in ("small", "policy"):
            body = {"model": model, "messages": HI}
            await bench.post("/e/e1/v1/messages/count_tokens", body, token=bench.token())
        assert (1, 1) == (other.counted, engine.counted)


async def test_mapped_names_are_models_that_there_are(make):
    """Agents look for them in the list."""
    async with make(models={"small": {}}) as bench:
        listed = await bench.agent().models.list()
        assert ["policy", "small"] == [model.id for model in listed.data]
        assert "small" == (await bench.agent().models.retrieve("small")).id


@pytest.mark.parametrize(
    "bad",
    [
        {"small": {"engine": "ftp://x"}}, {"small": {"engine": "http://a:b@c"}},
        {"small": {"colour": "red"}}, {"small": "policy"}, {"small": {"trained": "perhaps"}},
    ],
)  # fmt: skip
def test_a_mapping_that_cannot_work_is_refused_at_start(bad):
    """With the name of the setting."""
    with pytest.raises(ValueError, match="models"):
        ProxySettings(models=bad)


async def test_a_key_that_is_not_there_is_refused_at_start(make):
    """And the variable is named."""
    with pytest.raises(ProxyMisconfigured, match="NO_SUCH_KEY"):
        async with make(models={"small": {"engine": "http://x", "key_env": "NO_SUCH_KEY"}}):
            pass


def test_models_come_out_of_the_environment(monkeypatch):
    """As JSON, like every table."""
    monkeypatch.setenv("ODRADEK_PROXY_MODELS", '{"small": {"engine": "http://x:1/v1/"}}')
    assert {"small": {"engine": "http://x:1"}} == ProxySettings().models


@pytest.mark.parametrize("path", PATHS)
async def test_a_header_says_that_a_call_is_beside_the_task(make, path):
    """One that the settings name, and no other."""
    async with make(side_call_header="X-Side-Call") as bench:
        for headers in ({"x-side-call": "title"}, {"X-Side-Call": ""}, {"X-Other": "1"}, {}):
            await ask(bench, path, headers)
        assert ["side_call", "", "", ""] == why(bench)
        assert ({0: "side_call"}, [True] * 4) == left_out(bench)


NO = ["", " ", "0", "false", "False", "FALSE ", "no", "off", "none", "null", "n", "f"]
YES = ["1", "true", "title", "yes", "on", "00", "false positive"]


async def test_a_header_that_says_no_says_no(make):
    """In any spelling; a client that always sends it says so of most calls."""
    async with make(side_call_header="X-Side-Call", side_calls_without_tools=True) as bench:
        for value in [*NO, *YES]:
            said = {"X-Side-Call": value}
            await ask(
                bench, headers=said, tools=TOOLS["/chat/completions"], seed=len(bench.turns())
            )
        assert [""] * len(NO) + ["side_call"] * len(YES) == why(bench)
        assert len(YES) == bench.proxy.calls.side_calls.count


@pytest.mark.parametrize("path", PATHS)
async def test_calls_without_tools_are_beside_a_task_that_has_some(make, path):
    """Also those that came before it: the assembler has seen the whole episode."""
    async with make(side_calls_without_tools=True) as bench:
        await ask(bench, path)
        await ask(bench, path, tools=[])
        await ask(bench, path, tools=TOOLS[path])
        await ask(bench, path)
        await ask(bench, path, tools=TOOLS[path])
        assert ["", "", "", "side_call", ""] == why(bench)
        expected = {0: "side_call", 1: "side_call", 3: "side_call"}
        assert (expected, [True] * 5) == left_out(bench)


BESIDE = [({"model": "small"}, None), ({}, {"X-Side-Call": "title"})]
"""Calls that are known to be beside the task: by their model's name, by a header."""


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(("more", "headers"), BESIDE)
@pytest.mark.parametrize("path", PATHS)
async def test_the_tools_of_a_side_call_are_not_the_tasks(make, path, more, headers, first, stream):
    """A task without tools stays the task, whatever its side calls have."""
    settings = {"side_calls_without_tools": True, "side_call_header": "X-Side-Call"}
    async with make(models={"small": {}}, **settings) as bench:
        for beside in (first, not first):
            if beside:
                await ask(bench, path, headers, tools=TOOLS[path], stream=stream, **more)
            await ask(bench, path, stream=stream)
        sides = ["side_call" if turn.request.tools_digest else "" for turn in bench.turns()]
        assert (3, 1) == (len(sides), sides.count("side_call"))
        assert sides == why(bench)
        assert {sides.index("side_call"): "side_call"} == left_out(bench)[0]
        await ask(bench, path, tools=TOOLS[path])
        await ask(bench, path)
        assert ["", "side_call"] == why(bench)[3:]


async def test_a_side_call_that_failed_has_no_tools_of_the_tasks(make, engine):
    """Its turn keeps its reason beside its error."""
    async with make(models={"small": {}}, side_calls_without_tools=True) as bench:
        engine.mode = "error"
        body = {"model": "small", "messages": HI, "tools": TOOLS[PATHS[0]]}
        await bench.post("/e/e1/v1/chat/completions", body, token=bench.token())
        engine.mode = "ok"
        await ask(bench)
        assert ({0: "error"}, "") == (left_out(bench)[0], why(bench)[1])


async def test_the_tools_of_another_engine_that_is_trained_on_are_the_tasks(make):
    """Its calls are the task, too."""
    async with vendor(make, trained=True, without_tools=True) as (bench, _):
        await ask(bench, model="small", tools=TOOLS[PATHS[0]])
        await ask(bench)
        assert ["", "side_call"] == why(bench)


async def test_a_task_without_tools_is_no_side_call(make):
    """Whatever the setting."""
    async with make(side_calls_without_tools=True) as bench:
        await ask(bench)
        await ask(bench)
        assert ({}, ["", ""]) == (left_out(bench)[0], why(bench))


async def test_functions_are_tools(make):
    """The older way to have some."""
    async with make(side_calls_without_tools=True) as bench:
        await ask(bench, functions=[FUNCTION])
        await ask(bench)
        assert ({1: "side_call"}, ["", "side_call"]) == (left_out(bench)[0], why(bench))


async def test_nothing_is_beside_the_task_unless_it_is_asked_for(bench):
    """All of it is off by default."""
    await ask(bench)
    await ask(bench, tools=TOOLS["/chat/completions"])
    await ask(bench, headers={"X-Side-Call": "1"}, model="small")
    assert ({}, [""] * 3) == (left_out(bench)[0], why(bench))
    assert {False} == {turn.without_tools for turn in bench.turns()}


async def test_an_error_keeps_its_own_name(make, engine):
    """A side call that failed is left out as an error."""
    async with make(models={"small": {}}, side_calls_without_tools=True) as bench:
        engine.mode = "error"
        body = {"model": "small", "messages": HI}
        await bench.post("/e/e1/v1/chat/completions", body, token=bench.token())
        engine.mode = "ok"
        await ask(bench, tools=TOOLS["/chat/completions"])
        assert {0: "error"} == left_out(bench)[0]


async def test_a_conversation_goes_on_behind_a_side_call(make):
    """A summary that the next prompt begins with: the next turn is trained on."""
    async with make(models={"small": {}}) as bench:
        summary = json.loads(await ask(bench, model="small"))["choices"][0]["message"]
        await ask(bench, messages=[*HI, summary, {"role": "user", "content": "go on"}])
        assert ({0: "side_call"}, ["side_call", ""]) == (left_out(bench)[0], why(bench))
        assert bench.turns()[1].request.base == bench.turns()[0].turn_id
