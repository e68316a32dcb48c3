"""The small engine's text completions, `/tokenize` and `/render`, as vLLM answers them."""

import pytest
from aiohttp.test_utils import TestClient, TestServer
from openai import AsyncOpenAI, BadRequestError

from odradek.trainer.engine.server import SmallEngine
from odradek.trainer.engine.settings import EngineSettings

pytestmark = pytest.mark.torch
ASK = [{"role": "user", "content": "Guess a number from 1 to 3."}]
MORE = {"return_token_ids": True, "return_weight_versions": True}


@pytest.fixture
async def http(tiny):
    """A client of a running small engine."""
    small = SmallEngine(EngineSettings(model=str(tiny), seed=3))
    async with TestServer(small.app()) as server, TestClient(server) as client:
        yield client


@pytest.fixture
async def client(http):
    """OpenAI's own client on it."""
    url = str(http.make_url("/v1"))
    async with AsyncOpenAI(base_url=url, api_key="-", max_retries=0) as found:
        yield found


async def post(http, path, **body):
    """Status and body."""
    async with http.post(path, json=body) as answer:
        return answer.status, await answer.json()


async def test_a_text_completion_has_ids_of_prompt_and_text(client, tokenizer):
    """Each choice its own, and log probabilities as completions have them."""
    reply = await client.completions.create(
        model="m", prompt=["low", "high"], n=2, max_tokens=5, logprobs=0, extra_body=MORE
    )
    body = reply.model_dump()
    assert [0, 1, 2, 3] == [choice["index"] for choice in body["choices"]]
    for choice, prompt in zip(body["choices"], ["low", "low", "high", "high"], strict=True):
        ids, told = choice["token_ids"], choice["logprobs"]
        assert tokenizer.encode(prompt) == choice["prompt_token_ids"]
        assert tokenizer.decode(ids, skip_special_tokens=True) == choice["text"]
        assert len(ids) == len(told["token_logprobs"]) == len(told["tokens"])
        assert [{"version": 0, "start": 0, "end": len(ids)}] == choice["weight_versions"]
    sampled = sum(len(choice["token_ids"]) for choice in body["choices"])
    assert (7, sampled) == (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"])


async def test_a_stream_of_text_says_the_same_as_a_whole_one(client):
    """Greedy, of ids as the prompt: equal text and ids; the prompt's ids come once."""
    ask = {"model": "m", "prompt": [20, 21, 22], "temperature": 0, "max_tokens": 6}
    whole = await client.completions.create(**ask, extra_body=MORE)
    stream = await client.completions.create(
        **ask, extra_body=MORE, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk.model_dump() async for chunk in stream]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    expected = whole.model_dump()["choices"][0]
    assert expected["text"] == "".join(choice["text"] for choice in choices)
    assert expected["token_ids"] == [i for choice in choices for i in choice["token_ids"]]
    assert expected["finish_reason"] == choices[-1]["finish_reason"]
    given = [choice["prompt_token_ids"] for choice in choices]
    assert ([20, 21, 22], {None}) == (given[0], {*given[1:]} or {None})
    assert len(expected["token_ids"]) == chunks[-1]["usage"]["completion_tokens"]


@pytest.mark.parametrize(
    "mistake",
    [{"prompt": ""}, {"prompt": []}, {"prompt": [99999]}, {"prompt": [-1]}, {"prompt": [True]},
     {"prompt": {"a": 1}}, {"prompt": 7}, {"prompt": ["x", 7]}, {"prompt": "x", "echo": True}, {"prompt": "x", "max_tokens": 9999}],
)  # fmt: skip
async def test_a_text_completion_that_cannot_be_is_a_400(client, mistake):
    """That says why."""
    with pytest.raises(BadRequestError) as caught:
        await client.completions.create(
            model="m", prompt="x", extra_body=mistake
        )  # fmt: skip
    assert caught.value.body["message"]


async def test_tokenize_counts_and_tells_ids(http, tokenizer):
    """Of text, and of messages with what an answer begins with, if it is wanted."""
    text = await post(http, "/tokenize", prompt="low", return_token_strs=True)
    ids = tokenizer.encode("low")
    told = {"count": 3, "max_model_len": 2048, "tokens": ids, "token_strs": ["l", "o", "w"]}
    assert (200, told) == text
    for answer in (True, False):
        expected = tokenizer.apply_chat_template(
            ASK, add_generation_prompt=answer, return_dict=False
        )
        _, told = await post(http, "/tokenize", messages=ASK, add_generation_prompt=answer)
        assert (expected, len(expected)) == (told["tokens"], told["count"])
    assert 400 == (await post(http, "/tokenize", prompt=7))[0]


async def test_a_rendering_is_the_prompt_that_the_same_request_would_have(http):
    """Whatever else the request says."""
    ask = {"messages": ASK, "max_tokens": 2, "stream": True, "logprobs": True}
    _, rendered = await post(http, "/v1/chat/completions/render", **ask)
    _, reply = await post(http, "/v1/chat/completions", **ask | MORE | {"stream": False})
    assert reply["prompt_token_ids"] == rendered["token_ids"]


async def test_ids_that_come_with_a_chat_take_the_place_of_its_rendering(http):
    """As vLLM takes them from a peer; what is no list of ids is a 400."""
    told = {"prompt_token_ids": [20, 21, 22]}
    ask = {"messages": ASK, "max_tokens": 2, **MORE}
    _, reply = await post(http, "/v1/chat/completions", kv_transfer_params=told, **ask)
    assert [20, 21, 22] == reply["prompt_token_ids"]
    assert 3 == reply["usage"]["prompt_tokens"]
    for wrong in ([], "x", [-1], [1.5], [10**6]):
        told = {"prompt_token_ids": wrong}
        status, _ = await post(http, "/v1/chat/completions", kv_transfer_params=told, **ask)
        assert 400 == status
