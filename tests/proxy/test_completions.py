"""Text completions through the proxy, with the unmodified OpenAI client."""

import json

import pytest

from odradek.proxy.dialects.completions import COMPLETIONS
from odradek.proxy.dialects.dialect import Limits, RequestRules
from odradek.proxy.errors import LimitExceeded
from odradek.schemas.arrays import unpack_ids
from odradek.schemas.events import parsed

from .conftest import END
from .test_chat import pairs

PROMPTS = [("once", 1), (["once", "twice"], 2), ([5, 6, 7], 1), ([[5, 6], [7]], 2)]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("prompt", "count"), PROMPTS)
@pytest.mark.parametrize("extra", [{}, {"logprobs": 1}, {"n": 2}, {"return_token_ids": True}])
async def test_the_agent_sees_what_the_engine_answers_without_us(
    bench, engine, stream, prompt, count, extra
):
    """Text, list of texts, ids, list of ids: JSON and key order of a direct call."""
    body = {"model": "m", "prompt": prompt, "stream": stream, **extra}
    ours = await bench.post("/e/e1/v1/completions", body, token=bench.token())
    engine.calls.clear()
    proxy, bench.url = bench.url, engine.url
    theirs = await bench.post("/v1/completions", body)
    bench.url = proxy
    assert (200, 200) == (ours[0], theirs[0])
    assert pairs(theirs[2]) == pairs(ours[2])
    assert count * extra.get("n", 1) == len(bench.turns())
    assert {""} == {turn.untrainable or turn.error for turn in bench.turns()}


@pytest.mark.parametrize("stream", [False, True])
async def test_each_prompts_choices_are_turns_in_the_form_of_chats(bench, stream):
    """Prompt as a user's message, text as the assistant's, ids as the engine gave them."""
    asked = await bench.agent().completions.create(
        model="m", prompt=["once", "twice"], n=2, stream=stream, temperature=0.5
    )
    if stream:
        async for _ in asked:
            pass
    turns = bench.turns()
    assert [0, 1, 2, 3] == [turn.choice for turn in turns]
    assert {"completions"} == {turn.dialect for turn in turns}
    said = [turn.prompt.ids for turn in turns if not turn.prompt.base]
    assert [*b"once"] == unpack_ids(said[0]).tolist()
    text = parsed(turns[3].reply.message)["content"]
    assert [*text.encode(), END] == unpack_ids(turns[3].completion.ids).tolist()
    assert {"role": "user", "content": "twice"} == parsed(turns[2].request.messages[0])
    assert 0.5 == turns[0].request.sampling["temperature"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "prompt"),
        ({"prompt": {"x": 1}}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": "a", "prompt_embeds": "AAAA"}, "prompt_embeds"),
        ({"prompt": ["a"] * 100, "n": 2}, "prompt"),
        ({"prompt": "a", "max_tokens": 10**9}, "max_tokens"),
    ],
)
async def test_what_cannot_be_asked_is_a_400_that_names_the_field(bench, engine, body, field):
    """Tensors among them: an engine would load them (CVE-2025-62164)."""
    status, _, answer = await bench.post("/e/e1/v1/completions", body, token=bench.token())
    error = json.loads(answer)["error"]
    assert (400, "invalid_request_error") == (status, error["type"])
    assert field in (error["param"] or error["message"])
    assert not engine.calls
    assert not bench.events()


def taken(**body):
    return COMPLETIONS.parse(json.dumps(body).encode(), RequestRules(limits=Limits(n=4)))


def test_the_bound_of_choices_is_over_all_prompts():
    """As many as the bound are within it."""
    assert 2 == len(taken(prompt=["a", "b"], n=2).prompts)
    with pytest.raises(LimitExceeded):
        taken(prompt=["a", "b", "c"], n=2)


@pytest.mark.parametrize(("said", "asked"), [(None, 0), (False, 0), (0, 0), (2, 2)])
def test_log_probabilities_are_always_asked_for(said, asked):
    """As many as the agent wants, and it sees them only then."""
    ask = taken(prompt="a", logprobs=said)
    assert (asked, said is not None and said is not False) == (
        json.loads(ask.body)["logprobs"], ask.logprobs,
    )  # fmt: skip


def test_a_token_without_a_log_probability_keeps_its_place():
    """Such as the first of an echoed prompt: the turn is not trained on."""
    choice = {"text": "ab", "stop_reason": "x", "logprobs": {"token_logprobs": [None, -0.5]}}
    (found,) = COMPLETIONS.read(json.dumps({"choices": [choice]}).encode()).choices
    assert [None, -0.5] == [one.logprob for one in found.logprobs.content]
    assert "x" == found.stop_reason
