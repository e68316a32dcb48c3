"""Adapters in a real vLLM, against peft's own forward: `scripts/prove vllm` makes its environment."""

import asyncio

import aiohttp
import pytest
import torch

from odradek.trainer.adapters import files
from odradek.trainer.adapters.client import AdapterClient, AdapterTerms
from odradek.trainer.adapters.shape import AdapterShape
from odradek.trainer.errors import EngineRefused
from odradek.trainer.models import load_model
from odradek.trainer.weights.vllm import VllmEngine
from tests.support.engines.vllm_engine import vllm
from tests.support.trainer.hilo import random_play

pytestmark = [pytest.mark.vllm, pytest.mark.torch, pytest.mark.timeout(900)]
RANK, STALENESS = 4, 1
TERMS = AdapterTerms("policy", rank=RANK, kept=STALENESS + 1)
WORST = 1e-5
"""Nats between a token's log probability in vLLM and in peft, float32 in both."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The folder of a tiny model."""
    from odradek.trainer.engine.tiny import make_tiny

    folder = tmp_path_factory.mktemp("model") / "tiny"
    make_tiny(folder, random_play(256, 0), seed=0, steps=40)
    return folder


@pytest.fixture(scope="module")
def engine(tiny, tmp_path_factory):
    """A vLLM with room for two adapters and the next one; gives its address."""
    with pytest.MonkeyPatch.context() as env:
        env.setenv("ODRADEK_TRAINER_LORA_RANK", str(RANK))
        env.setenv("ODRADEK_TRAINER_MAX_STALENESS", str(STALENESS))
        log = tmp_path_factory.mktemp("vllm") / "log"
        with vllm(tiny, log, "--max-model-len", "512") as url:
            yield url


@pytest.fixture(scope="module")
def written(tiny, tmp_path_factory):
    """`written(version)`: an adapter that is another for each version."""
    root = tmp_path_factory.mktemp("adapters")
    model = load_model(tiny)

    def write(version):
        folder = root / f"v{version}"
        if not folder.is_dir():
            folder.mkdir()
            random = torch.Generator().manual_seed(version)
            tensors = {}
            for name, layer in model.named_modules():
                if isinstance(layer, torch.nn.Linear) and name != "lm_head":
                    a = torch.randn((RANK, layer.in_features), generator=random) * 0.1
                    b = torch.randn((layer.out_features, RANK), generator=random) * 0.1
                    tensors[f"{name}.lora_A.default.weight"] = a
                    tensors[f"{name}.lora_B.default.weight"] = b
            files.write(folder, tensors, AdapterShape(RANK, 8, rslora=True), base=str(tiny))
        return folder

    return write


def client(url, terms=TERMS):
    return AdapterClient(VllmEngine(url), terms)


async def replies(url, model, n, max_tokens):
    """Prompt ids, and (ids, log probabilities) of n replies of a model or adapter."""
    body = {
        "model": model, "n": n, "max_tokens": max_tokens, "temperature": 1.0, "logprobs": True,
        "return_token_ids": True, "ignore_eos": True, "cache_salt": model,
        "messages": [{"role": "user", "content": "Guess a number from 1 to 3."}],
    }  # fmt: skip
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/v1/chat/completions", json=body) as answer,
    ):
        reply = await answer.json()
        assert 200 == answer.status, reply
    found = [
        (choice["token_ids"], [entry["logprob"] for entry in choice["logprobs"]["content"]])
        for choice in reply["choices"]
    ]
    return reply["prompt_token_ids"], found


def differences(tiny, folder, prompt, found):
    """Of each sampled token, vLLM's log probability against that of peft's model."""
    from peft import PeftModel

    model = load_model(tiny)
    if folder is not None:
        model = PeftModel.from_pretrained(model, folder).eval()
    off = []
    for ids, logprobs in found:
        row = torch.tensor([prompt + ids])
        with torch.no_grad():
            every = model(input_ids=row).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        ours = every.gather(1, torch.tensor(ids)[:, None])[:, 0]
        off.append((ours - torch.tensor(logprobs)).abs())
    return torch.cat(off)


async def test_vllm_says_of_each_adapter_what_peft_says(engine, tiny, written):
    """And of the model beneath; old adapters are forgotten, a second load of one changes nothing."""
    for version in (1, 2, 3, 3):
        await client(engine).load(written(version), version, lambda: None)
    assert 3 == await client(engine).serves()
    with pytest.raises(AssertionError, match="does not exist"):
        await replies(engine, "policy-v1", 1, 2)
    for model, folder in (("policy", None), ("policy-v2", written(2)), ("policy-v3", written(3))):
        prompt, found = await replies(engine, model, 8, 32)
        off = differences(tiny, folder, prompt, found)
        print(f"{model}: {len(off)} tokens, mean {off.mean():.1e}, largest {off.max():.1e}")
        assert off.max() < WORST
    wrong = differences(tiny, written(2), prompt, found)
    assert wrong.max() > 0.1


async def test_a_request_under_way_keeps_its_adapter(engine, tiny, written):
    """Two newer ones are loaded meanwhile, and its own is forgotten."""
    for version in (4, 5):
        await client(engine).load(written(version), version, lambda: None)
    asking = asyncio.create_task(replies(engine, "policy-v4", 4, 400))
    await asyncio.sleep(0.5)
    assert not asking.done()
    for version in (6, 7):
        await client(engine).load(written(version), version, lambda: None)
    assert not asking.done()
    prompt, found = await asking
    off = differences(tiny, written(4), prompt, found)
    print(f"over two loads: {len(off)} tokens, largest {off.max():.1e}")
    assert off.max() < WORST


async def test_a_vllm_with_too_little_room_is_refused(engine, written):
    """It says itself how many adapters and which rank it was started for."""
    for terms, says in (
        (AdapterTerms("policy", rank=RANK, kept=3), "--max-loras 3"),
        (AdapterTerms("policy", rank=16, kept=2), "--max-lora-rank 8"),
    ):
        with pytest.raises(EngineRefused, match=says):
            await client(engine, terms).load(written(8), 8, lambda: None)
