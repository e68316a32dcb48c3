"""Engines get each version of an adapter under its own name, and forget those that nobody asks for."""

import asyncio
import logging
import shutil

import pytest
import torch
from aiohttp.test_utils import TestClient, TestServer

from odradek.schemas.events import Policy
from odradek.trainer.adapters import files
from odradek.trainer.adapters.client import AdapterClient, AdapterTerms
from odradek.trainer.adapters.shape import AdapterShape
from odradek.trainer.engine import adapters, process
from odradek.trainer.engine.decode import SampleRequest
from odradek.trainer.engine.policies import folder_of
from odradek.trainer.engine.server import SmallEngine
from odradek.trainer.engine.settings import EngineSettings
from odradek.trainer.engine.vllm import command_of, environment, refuse_fewer_adapters
from odradek.trainer.errors import BadAdapter, BadSettings, EngineRefused, UnsupportedRequest
from odradek.trainer.models import load_model
from odradek.trainer.weights.fleet import Fleet
from odradek.trainer.weights.vllm import VllmEngine

pytestmark = pytest.mark.torch
ASK = [{"role": "user", "content": "Guess a number from 1 to 3."}]
MORE = {
    "return_token_ids": True,
    "return_weight_versions": True,
    "temperature": 0,
    "logprobs": True,
}
TERMS = AdapterTerms("policy", rank=4, kept=2)


@pytest.fixture(scope="module")
def written(tiny, tmp_path_factory):
    """`written(version)`: an adapter that is another for each version."""
    root = tmp_path_factory.mktemp("adapters")
    layers = {
        name: module
        for name, module in load_model(tiny).named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    }

    def write(version):
        folder = root / f"v{version}"
        if not folder.is_dir():
            folder.mkdir()
            random = torch.Generator().manual_seed(version)
            tensors = {}
            for name, layer in layers.items():
                shapes = {"lora_A": (4, layer.in_features), "lora_B": (layer.out_features, 4)}
                for side, shape in shapes.items():
                    tensors[f"{name}.{side}.default.weight"] = (
                        torch.randn(shape, generator=random) * 0.3
                    )
            files.write(folder, tensors, AdapterShape(4, 8), base=str(tiny))
        return folder

    return write


@pytest.fixture
async def engine(tiny):
    """A running small engine, and a client of its HTTP."""
    small = SmallEngine(EngineSettings(model=str(tiny), seed=3))
    async with TestServer(small.app()) as server, TestClient(server) as http:
        small.url = str(server.make_url("/")).rstrip("/")
        small.http = http
        yield small


def client(small, terms=TERMS, at=lambda _: None):
    return AdapterClient(VllmEngine(small.url), terms, at=at)


async def ask(small, model):
    """Status, ids and version of a greedy reply."""
    body = {"model": model, "messages": ASK, "max_tokens": 8, **MORE}
    answer = await small.http.post("/v1/chat/completions", json=body)
    if answer.status != 200:
        return answer.status, None, None
    (choice,) = (await answer.json())["choices"]
    logprobs = [entry["logprob"] for entry in choice["logprobs"]["content"]]
    return 200, (choice["token_ids"], logprobs), choice["weight_versions"][0]["version"]


def test_the_small_engine_says_what_peft_says(groups, bench):
    """The trained model's own logits, to rounding; and without the adapter those of the model."""
    made = bench(groups, max_steps=2, lora_rank=4, lora_alpha=8, learning_rate=5e-3)
    made.trainer.run()
    folder = made.trainer.parts.transfer.folder
    ids = torch.arange(5, 25)[None]
    trained = made.trainer.model.eval()
    trained.set_attn_implementation("sdpa")
    expected = trained(input_ids=ids).logits.log_softmax(-1)
    model = load_model(made.settings.model)
    before = model(input_ids=ids).logits.log_softmax(-1)
    with adapters.applied(adapters.load(model, "policy-v3", folder)):
        found = model(input_ids=ids).logits.log_softmax(-1)
    assert torch.allclose(expected, found, atol=1e-6)
    assert not torch.allclose(before, found, atol=1e-3)
    assert torch.equal(before, model(input_ids=ids).logits.log_softmax(-1))


async def test_calls_of_several_adapters_meet_in_one_batch(engine, written):
    """Each gets what it would have got alone, under its own version; so does the model itself."""
    for version in (3, 4):
        await engine.batcher.load_adapter(f"policy-v{version}", written(version))
    names = ["policy", "policy-v3", "policy-v4", "policy-v3"]
    alone = [await ask(engine, name) for name in names]
    before = engine.batcher.batches
    together = await asyncio.gather(*(ask(engine, name) for name in names))
    assert engine.batcher.batches < before + len(names)
    assert [0, 3, 4, 3] == [version for _, _, version in together]
    for (_, (ids, logprobs), _), (_, (others, theirs), _) in zip(alone, together, strict=True):
        assert ids == others
        assert theirs == pytest.approx(logprobs, abs=1e-5)
    assert alone[0][1] != alone[1][1] != alone[2][1]


async def test_a_new_adapter_is_loaded_and_those_behind_are_forgotten(engine, written):
    """Beside the newest as many as rows are still taken of; a second load of one changes nothing."""
    began = []
    for version in (1, 2, 5):
        await client(engine).load(written(version), version, lambda: began.append(True))
        await client(engine).load(written(version), version, lambda: began.append(True))
    assert ["policy-v2", "policy-v5"] == list(engine.batcher.adapters)
    assert (5, 6) == (await client(engine).serves(), len(began))
    assert [(404, None, None)] == [await ask(engine, "policy-v1")]
    assert 2 == (await ask(engine, "policy-v2"))[2]


async def test_a_call_under_way_keeps_the_adapter_that_it_named(engine, written):
    """Though it is forgotten, and another one is loaded, before the first token."""
    await engine.batcher.load_adapter("policy-v1", written(1))
    expected = await ask(engine, "policy-v1")
    await engine.batcher.pause()
    asking = asyncio.create_task(ask(engine, "policy-v1"))
    while engine.batcher._queue.empty():
        await asyncio.sleep(0)
    await client(engine).load(written(4), 4, lambda: None)
    await client(engine).load(written(5), 5, lambda: None)
    assert "policy-v1" not in engine.batcher.adapters
    engine.batcher.resume()
    assert expected == await asking


async def test_a_trainer_that_dies_before_it_unloads_leaves_a_newer_adapter_that_nobody_names(
    engine, written
):
    """The next load takes the old ones away."""

    class Died(BaseException):
        pass

    def die(point):
        if point == "adapter_before_unload":
            raise Died

    for version in (1, 2):
        await client(engine).load(written(version), version, lambda: None)
    with pytest.raises(Died):
        await client(engine, at=die).load(written(3), 3, lambda: None)
    assert ["policy-v1", "policy-v2", "policy-v3"] == list(engine.batcher.adapters)
    await client(engine).load(written(4), 4, lambda: None)
    assert ["policy-v3", "policy-v4"] == list(engine.batcher.adapters)


async def test_one_engine_that_fails_to_load_does_not_hold_up_the_other(engine, written, tmp_path):
    """It is asked again and again, and has the newest once it can; so has one that was restarted."""
    told = []
    other = SmallEngine(EngineSettings(model=engine.settings.model))
    missing = tmp_path / "late"
    async with TestServer(other.app()) as server:
        other.url = str(server.make_url("/")).rstrip("/")
        load = other.batcher.load_adapter

        async def refuses(name, folder):
            if not missing.exists():
                raise UnsupportedRequest("no room")
            await load(name, folder)

        other.batcher.load_adapter = refuses
        fleet = Fleet([client(engine), client(other)], timeout_s=20, tell=told.append)
        try:
            assert {engine.url: 3, other.url: 0} == await fleet.swap(written(3), 3)
            assert any("no room" in line for line in told)
            missing.touch()
            async with asyncio.timeout(60):
                while "policy-v3" not in other.batcher.adapters:
                    await asyncio.sleep(0.01)
                engine.batcher.adapters.clear()  # as if it had been started anew
                while "policy-v3" not in engine.batcher.adapters:
                    await asyncio.sleep(0.01)
        finally:
            await fleet.aclose()


test_one_engine_that_fails_to_load_does_not_hold_up_the_other = pytest.mark.usefixtures(
    "quick_fleet"
)(test_one_engine_that_fails_to_load_does_not_hold_up_the_other)


class Host:
    """An engine's client that says what room it has."""

    url = "http://engine"
    adapter_paths = ("/load", "/unload")

    def __init__(self, room, unload=(200, {})):
        self.room, self.unload, self.asked = room, unload, []

    async def ask(self, method, path, within_s, **request):
        self.asked.append(path)
        listed = {"data": [{"id": f"policy-v{n}"} for n in range(1, 5)]}
        return self.unload if path == "/unload" else (200, listed)

    async def post(self, path, **request):
        self.asked.append(path)
        return {}

    async def room_for_adapters(self):
        return self.room


@pytest.mark.parametrize(
    ("room", "says"), [((2, 3), "--max-lora-rank 2"), ((8, 2), "--max-loras 2"), ((0, 0), "rank 0")]
)
async def test_an_engine_without_room_for_all_adapters_is_refused(room, says):
    """With what it has, what the run needs, and how to start it."""
    from odradek.trainer.weights.client import AdapterRoom

    host = Host(AdapterRoom(*room))
    with pytest.raises(EngineRefused, match=says):
        await AdapterClient(host, TERMS).load("folder", 7, lambda: None)
    assert "/load" not in host.asked
    enough = AdapterClient(Host(AdapterRoom(4, 3)), TERMS)
    await enough.load("folder", 7, lambda: None)


async def test_an_adapter_that_an_engine_will_not_forget_is_named_and_stays(caplog):
    """The new one is loaded all the same: only room is lost."""
    host = Host(None, unload=(500, "it is in use"))
    with caplog.at_level(logging.WARNING, "odradek"):
        await AdapterClient(host, TERMS).load("folder", 7, lambda: None)
    assert ["/v1/models", "/unload", "/unload", "/load", "/unload"] == host.asked
    assert "keeps the adapter policy-v1" in caplog.text


async def test_an_engine_follows_the_log_to_the_newest_adapter(engine, written):
    """Before it serves, and without the trainer; what is behind is forgotten."""
    engine.settings = engine.settings.model_copy(update={"max_staleness": 0, "policy": "policy"})
    for version in (3, 4, 2):
        folder = written(version)
        digest = files_digest(folder)
        policy = Policy(
            name="policy", version=version, uri=folder.as_uri(), format="lora", digest=digest
        )
        await process._take(engine, policy)
    assert (["policy-v4"], 4) == (list(engine.batcher.adapters), engine.newest)


def files_digest(folder):
    from odradek.trainer.commit.durable_files import sha256_of

    return sha256_of(folder / "adapter_model.safetensors")


def test_equal_adapters_are_equal_bytes(written, tmp_path):
    """Else a run that was resumed would announce other digests than one that went on."""
    shape, tensors = files.read(written(3))
    named = {name.removeprefix("base_model.model."): t for name, t in tensors.items()}
    digests = set()
    for _ in range(8):
        files.write(tmp_path, named, shape, base="m")
        digests.add(files_digest(tmp_path))
    assert 1 == len(digests)


def test_a_policys_adapter_is_held_against_its_digest(written, tmp_path):
    """The one digest is of its matrices, and these hold that of its configuration."""
    folder = tmp_path / "v9"
    shutil.copytree(written(3), folder)
    policy = Policy(
        name="policy", version=9, uri=folder.as_uri(), format="lora", digest=files_digest(folder)
    )
    assert folder == folder_of(policy)
    config = folder / "adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 8', '"lora_alpha": 9'))
    with pytest.raises(BadAdapter, match="not the one that was written with"):
        files.read(folder)
    (folder / "adapter_model.safetensors").write_bytes(b"else")
    with pytest.raises(UnsupportedRequest, match="another digest"):
        folder_of(policy)


@pytest.mark.parametrize("spoil", ["layer", "size", "file"])
def test_an_adapter_of_another_model_is_refused_by_the_engine(sampler, written, tmp_path, spoil):
    """The old ones stay; nothing is applied in part."""
    shape, tensors = files.read(written(3))
    named = {name.removeprefix("base_model.model."): t for name, t in tensors.items()}
    if spoil == "layer":
        named = {name.replace("layers.1", "layers.7"): t for name, t in named.items()}
    if spoil == "size":
        named = {name: t[:, :3] if "lora_A" in name else t for name, t in named.items()}
    files.write(tmp_path, named, shape, base="m")
    if spoil == "file":
        (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(UnsupportedRequest, match=str(tmp_path)):
        adapters.load(sampler.model, "policy-v3", tmp_path)
    assert sampler.sample([SampleRequest([5, 6], temperature=0, max_tokens=2)])


def test_vllm_is_started_with_room_for_every_adapter_that_is_asked_for():
    """Its ranks are steps of its own, and one adapter more than rows may be stale."""
    settings = EngineSettings(model="m", lora_rank=20, max_staleness=4)
    command = command_of(settings, "python", ["--max-model-len", "64"])
    at = command.index("--max-lora-rank")
    assert ["--max-lora-rank", "32", "--max-loras", "6"] == command[at : at + 4]
    assert "--enable-lora" in command
    assert "1" == environment(adapters=True)["VLLM_ALLOW_RUNTIME_LORA_UPDATING"]
    plain = command_of(EngineSettings(model="m"), "python", [])
    assert not [part for part in plain if "lora" in part]
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in environment()


@pytest.mark.parametrize("flags", [["--max-loras", "5"], ["--max_loras=1"], ["--max-lora-rank=16"]])
def test_a_flag_that_leaves_too_little_room_is_refused(flags):
    """More than is needed is left to whoever gives it."""
    settings = EngineSettings(model="m", lora_rank=20, max_staleness=4)
    with pytest.raises(BadSettings, match="lora_rank"):
        refuse_fewer_adapters(settings, flags)
    refuse_fewer_adapters(settings, ["--max-loras", "6", "--max-lora-rank", "64"])
    refuse_fewer_adapters(EngineSettings(model="m"), flags)
