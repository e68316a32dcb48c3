"""The small engine's surface, as OpenAI's client and the trainer see it."""

import asyncio
import itertools
import json
import shutil
import socket

import msgspec
import pytest
import torch
from aiohttp.test_utils import TestClient, TestServer
from openai import AsyncOpenAI, BadRequestError
from safetensors.torch import load_file, save_file

from odradek.schemas.http import engine as surface
from odradek.trainer.engine.policies import folder_of
from odradek.trainer.engine.process import serve
from odradek.trainer.engine.server import SmallEngine
from odradek.trainer.engine.settings import EngineSettings
from odradek.trainer.errors import BadSettings, EngineDown, NoTokenizer, UnsupportedRequest
from odradek.trainer.models import load_model
from odradek.trainer.weights.directory import DirectoryTransfer
from odradek.trainer.weights.engines import Engines

pytestmark = pytest.mark.torch
ASK = [{"role": "user", "content": "Guess a number from 1 to 3."}]


@pytest.fixture
async def engine(tiny):
    """A running small engine."""
    small = SmallEngine(EngineSettings(model=str(tiny), seed=3))
    async with TestServer(small.app()) as server:
        yield small, server


@pytest.fixture
async def client(engine):
    """OpenAI's own client on it."""
    _, server = engine
    async with AsyncOpenAI(base_url=str(server.make_url("/v1")), api_key="-", max_retries=0) as c:
        yield c


MORE = {"return_token_ids": True, "return_weight_versions": True}


async def test_a_reply_has_ids_log_probabilities_and_versions(client, tokenizer):
    """As vLLM tells them; the text is what the ids say."""
    reply = await client.chat.completions.create(
        model="policy", messages=ASK, logprobs=True, extra_body=MORE
    )
    body = reply.model_dump()
    choice = body["choices"][0]
    ids = choice["token_ids"]
    assert tokenizer.apply_chat_template(
        ASK, add_generation_prompt=True, return_dict=False
    ) == body["prompt_token_ids"]  # fmt: skip
    assert tokenizer.decode(ids, skip_special_tokens=True) == choice["message"]["content"]
    assert len(ids) == len(choice["logprobs"]["content"]) == body["usage"]["completion_tokens"]
    assert all(entry["logprob"] <= 0 for entry in choice["logprobs"]["content"])
    assert [{"version": 0, "start": 0, "end": len(ids)}] == choice["weight_versions"]
    assert ("stop", tokenizer.eos_token_id) == (choice["finish_reason"], ids[-1])


async def test_nothing_is_added_that_was_not_asked_for(client):
    """The plain reply has the plain keys."""
    body = (await client.chat.completions.create(model="m", messages=ASK)).model_dump(
        exclude_unset=True
    )
    assert {"id", "object", "created", "model", "choices", "usage"} == set(body)
    assert {"index", "message", "logprobs", "finish_reason", "stop_reason"} == set(
        body["choices"][0]
    )
    assert body["choices"][0]["logprobs"] is None


async def test_a_stream_says_the_same_as_a_whole_reply(client, tokenizer):
    """Greedy, streamed and not: equal text, ids and log probabilities."""
    ask = {"model": "m", "messages": ASK, "temperature": 0, "logprobs": True, "extra_body": MORE}
    whole = (await client.chat.completions.create(**ask)).model_dump()["choices"][0]
    text, ids, logprobs, prompt, finish, usage = "", [], [], None, None, None
    stream = await client.chat.completions.create(
        **ask, stream=True, stream_options={"include_usage": True}
    )
    async for event in stream:
        chunk = event.model_dump()
        prompt = prompt or chunk.get("prompt_token_ids")
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            text += choice["delta"]["content"] or ""
            ids += choice.get("token_ids") or []
            logprobs += [e["logprob"] for e in (choice["logprobs"] or {}).get("content", [])]
            finish = choice["finish_reason"] or finish
    assert whole["message"]["content"] == text
    assert (whole["token_ids"], "stop") == (ids, finish)
    assert [e["logprob"] for e in whole["logprobs"]["content"]] == pytest.approx(logprobs, abs=1e-5)
    assert prompt is not None
    assert len(ids) == usage["completion_tokens"]


async def test_many_requests_share_batches_and_the_loop_stays_free(engine, client):
    """200 requests at once take far fewer batches; n gives as many choices."""
    small, _ = engine
    replies = await asyncio.gather(
        *(client.chat.completions.create(model="m", messages=ASK, max_tokens=4)
          for _ in range(200))
    )  # fmt: skip
    assert 200 == len(replies)
    assert small.batcher.batches <= 100
    several = await client.chat.completions.create(model="m", messages=ASK, n=5)
    assert 5 == len(several.choices)


@pytest.mark.parametrize(
    "mistake",
    [{"messages": []}, {"messages": [{"content": "x"}]}, {"temperature": "hot"}, {"max_tokens": 0},
     {"top_p": 0.5}, {"stop": ["x"]}, {"max_tokens": 9999}, {"n": -1},
     {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}],
)  # fmt: skip
async def test_what_it_cannot_do_is_a_400_that_says_so(client, mistake):
    """In the shape that OpenAI's clients read."""
    with pytest.raises(BadRequestError) as caught:
        await client.chat.completions.create(model="m", messages=ASK, extra_body=mistake)
    assert caught.value.body["message"]


async def test_it_answers_every_route_of_the_declared_surface(engine):
    """So it needs no adapter; what else it answers, only tests ask."""
    small, _ = engine
    routes = {
        (route.method, route.resource.canonical)
        for route in small.app().router.routes()
        if route.method != "HEAD"
    }
    assert {(route.method, route.path) for route in surface.ROUTES} == routes - {
        ("GET", "/is_paused")
    }


async def test_its_replies_have_the_declared_types(engine):
    """A chat, a rendering, a count and its version, each read as the proxy reads it."""
    _, server = engine
    chat = {"model": "policy", "messages": ASK, "max_tokens": 3}
    asked = ((surface.CHAT, chat | MORE), (surface.RENDER, chat), (surface.COUNT, chat))
    async with TestClient(server) as http:
        for route, body in asked:
            answer = await (await http.post(route.path, json=body)).read()
            read = msgspec.json.decode(answer, type=route.reply)
            assert any(getattr(read, name) for name in read.__struct_fields__)
        answer = await (await http.get(surface.VERSION.path)).read()
        served = msgspec.json.decode(answer, type=surface.VERSION.reply)
        assert "0" == served.weight_version


async def test_models_health_and_unknown_paths(engine):
    """What agents and supervisors ask first."""
    _, server = engine
    async with TestClient(server) as http:
        assert 200 == (await http.get("/health")).status
        models = await (await http.get("/v1/models")).json()
        assert ["policy"] == [model["id"] for model in models["data"]]
        assert 2048 == models["data"][0]["max_model_len"]
        assert 404 == (await http.get("/nothing")).status
        assert 400 == (await http.post("/v1/chat/completions", data=b"{")).status


def shifted(tiny, folder):
    """Weights of the same model that always answer with the same token."""
    weights = load_file(tiny / "model.safetensors")
    weights["lm_head.weight"] = -weights["lm_head.weight"]
    folder.mkdir()
    save_file(weights, folder / "model.safetensors")
    return folder


async def test_weights_swapped_in_flight_are_told_by_version(engine, client, tiny, tmp_path):
    """Pause keeps requests; each reply is of exactly the version its span names."""
    small, server = engine
    ask = {"model": "m", "messages": ASK, "temperature": 0, "max_tokens": 3, "extra_body": MORE}
    before = (await client.chat.completions.create(**ask)).model_dump()["choices"][0]
    async with TestClient(server) as http:
        assert 200 == (await http.post("/pause?mode=keep")).status
        assert {"is_paused": True} == await (await http.get("/is_paused")).json()
        kept = [asyncio.create_task(client.chat.completions.create(**ask)) for _ in range(3)]
        while small.batcher._queue.qsize() < 2:
            await asyncio.sleep(0.01)
        reload = {"method": "reload_weights",
                  "kwargs": {"weights_path": str(shifted(tiny, tmp_path / "w"))}}  # fmt: skip
        assert 200 == (await http.post("/collective_rpc", json=reload)).status
        assert 200 == (await http.post("/update_weight_version", json={"new_version": "7"})).status
        assert 200 == (await http.post("/reset_prefix_cache")).status
        assert not any(task.done() for task in kept)
        assert 200 == (await http.post("/resume")).status
        for task in kept:
            after = (await task).model_dump()["choices"][0]
            assert [7] == [span["version"] for span in after["weight_versions"]]
            assert before["token_ids"] != after["token_ids"]


async def test_weights_of_another_model_are_refused_and_the_old_ones_stay(engine, tmp_path):
    """Only safetensors of the same architecture are loaded."""
    _, server = engine
    other = tmp_path / "other"
    other.mkdir()
    save_file({"alien": torch.zeros(2)}, other / "model.safetensors")
    async with TestClient(server) as http:
        for path in (str(other), str(tmp_path / "nowhere"), 7, "a\0b"):
            body = {"method": "reload_weights", "kwargs": {"weights_path": path}}
            assert 400 == (await http.post("/collective_rpc", json=body)).status
        assert 400 == (await http.post("/collective_rpc", json={"method": "exec"})).status
        for version in (-1, "x", None, True):
            answer = await http.post("/update_weight_version", json={"new_version": version})
            assert 400 == answer.status
        good = await http.post("/v1/chat/completions", json={"messages": ASK, "temperature": 0})
        assert 200 == good.status


async def test_the_trainers_transfer_reaches_the_engine(engine, tiny, tmp_path):
    """Written under a new name, reloaded, named: the next reply is of the new version."""
    small, server = engine
    url = str(server.make_url("")).rstrip("/")
    model = load_model(tiny)
    with torch.no_grad():
        model.lm_head.weight.neg_()
    transfer = DirectoryTransfer(tmp_path / "weights", Engines([url]), config=None, keep=2)
    transfer.init_weight_transfer()

    def send(version):
        transfer.version = version
        transfer.pause()
        transfer.send_weights(model.named_parameters())
        transfer.resume()

    for version in (4, 5, 6):
        await asyncio.to_thread(send, version)
    assert (6, False) == (small.batcher.version, small.batcher.paused)
    assert torch.equal(small.batcher._sampler.model.lm_head.weight, model.lm_head.weight)
    assert ["v5", "v6"] == sorted(path.name for path in (tmp_path / "weights").iterdir())
    assert {url: 6} == transfer.served
    await asyncio.to_thread(transfer.destroy)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_an_engine_that_is_down_is_one_clear_line(tmp_path):
    """After waiting for it as long as it was told."""
    url = f"http://127.0.0.1:{free_port()}"
    told = []
    engines = Engines([url], timeout_s=0.3, tell=told.append)
    with pytest.raises(EngineDown, match="no engine answers"):
        engines.swap(tmp_path, 1)
    engines.close()
    assert [f"engine {url} does not answer: waiting for it"] == told


async def test_a_port_in_use_and_a_missing_tokenizer_are_one_clear_line(tiny, tmp_path):
    """Both are mistakes, told before anything is served."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BadSettings, match=f"port {port} is in use"):
            await serve(EngineSettings(model=str(tiny), port=port), None)
    (tmp_path / "config.json").write_bytes((tiny / "config.json").read_bytes())
    with pytest.raises(NoTokenizer):
        SmallEngine(EngineSettings(model=str(tmp_path)))
    with pytest.raises(BadSettings, match="no model is named"):
        SmallEngine(EngineSettings())


def test_a_policys_weights_are_held_against_its_digest(tmp_path):
    """Gone, elsewhere or other bytes: refused."""
    from odradek.schemas.events import Policy
    from odradek.trainer.commit.durable_files import sha256_of

    file = tmp_path / "model.safetensors"
    file.write_bytes(b"weights")
    good = Policy(name="p", version=1, uri=tmp_path.as_uri(), digest=sha256_of(file))
    assert tmp_path == folder_of(good)
    for bad in (
        {"uri": "https://elsewhere/v1"}, {"uri": (tmp_path / "gone").as_uri()}, {"digest": "0"},
    ):  # fmt: skip
        with pytest.raises(UnsupportedRequest):
            folder_of(Policy(**{"name": "p", "version": 1, "uri": good.uri} | bad))


def test_vllm_is_started_with_what_training_needs():
    """The flags of the facts; the user's own win."""
    from odradek.trainer.engine.vllm import command_of, environment

    settings = EngineSettings(model="Qwen/Qwen3-0.6B", port=9)
    line = command_of(settings, "py", ["--dtype", "bfloat16", "--max-model-len", "64"])
    pairs = dict(itertools.pairwise(line))
    assert ("processed_logprobs", "policy") == (
        pairs["--logprobs-mode"], pairs["--served-model-name"],
    )  # fmt: skip
    assert 1 == line.count("--dtype")
    assert "bfloat16" == pairs["--dtype"]
    assert "1" == environment()["VLLM_SERVER_DEV_MODE"]
    assert json.dumps(line)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
async def test_the_likeliest_tokens_are_told_at_their_temperature(client, tiny, temperature):
    """As many as are asked for, the likeliest first; none where nobody asks."""
    reply = await client.chat.completions.create(
        model="policy", messages=ASK, logprobs=True, top_logprobs=3, max_tokens=4,
        temperature=temperature, extra_body=MORE,
    )  # fmt: skip
    body = reply.model_dump()
    logits = load_model(tiny)(torch.tensor([body["prompt_token_ids"]])).logits[0, -1]
    expected = (logits / temperature).log_softmax(-1).topk(3).values.tolist()
    content = body["choices"][0]["logprobs"]["content"]
    assert expected == pytest.approx(
        [one["logprob"] for one in content[0]["top_logprobs"]], abs=1e-4
    )
    assert {3} == {len(one["top_logprobs"]) for one in content}
    bare = await client.chat.completions.create(model="policy", messages=ASK, logprobs=True)
    assert not bare.choices[0].logprobs.content[0].top_logprobs


def test_weights_keep_their_configuration_though_its_checkpoint_rotates(tmp_path):
    """A resumed run takes it from a checkpoint, which is gone some steps later."""
    checkpoint = tmp_path / "checkpoint-1"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text("{}")
    transfer = DirectoryTransfer(
        tmp_path / "w", Engines([]), config=checkpoint / "config.json", keep=2
    )
    transfer.version = 2
    transfer.init_weight_transfer()
    shutil.rmtree(checkpoint)
    transfer.send_weights([("a", torch.zeros(2))])
    assert "{}" == (transfer.folder / "config.json").read_text()
