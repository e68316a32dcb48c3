"""Weights on their way to an SGLang, as its documentation has it, and to the engine in memory."""

import asyncio
from contextlib import asynccontextmanager
from functools import partial

import pytest

from odradek.trainer.adapters.client import AdapterClient, AdapterTerms
from odradek.trainer.commit.durable_files import sha256_of
from odradek.trainer.commit.tensor_files import WEIGHTS
from odradek.trainer.errors import EngineDown, EngineRefused
from odradek.trainer.weights.engines import Engines
from odradek.trainer.weights.memory import MemoryEngine
from odradek.trainer.weights.recognition import RecognizedEngine
from odradek.trainer.weights.sglang import SglangEngine
from odradek.trainer.weights.vllm import VllmEngine
from tests.support.engines.sglang_engine import SglangStub
from tests.support.engines.stub_engine import listening
from tests.support.engines.weight_engine import WeightServer

SWAP = ["pause retract", "update", "continue"]


pytestmark = pytest.mark.usefixtures("quick_fleet")


@asynccontextmanager
async def engines(*stubs, timeout_s=30.0):
    """Stubs, and the trainer's view of them: its calls block, so they go through a thread."""
    urls = []
    async with listening(stubs[0].app()) as url:
        urls.append(url)
        made = Engines(urls, timeout_s=timeout_s)
        made.url = url
        try:
            yield made
        finally:
            await asyncio.to_thread(made.close)


@pytest.mark.parametrize("spans", [True, False])
async def test_weights_and_their_name_come_in_one_request(weights, spans):
    """Nothing could have sampled a token under a version that its weights do not have."""
    stub = SglangStub(spans=spans)
    async with engines(stub) as found:
        await asyncio.to_thread(found.reach)
        for version in (1, 2):
            served = await asyncio.to_thread(found.swap, weights(version), version)
            assert {found.url: version} == served
    assert [*SWAP, *SWAP] == stub.asked
    assert [(str(n), sha256_of(weights(n) / WEIGHTS)) for n in (1, 2)] == stub.served[1:]
    assert not stub.paused


async def test_an_older_one_is_loaded_without_a_pause(weights):
    """It waits itself for the requests under way."""
    stub = SglangStub(old=True)
    async with engines(stub) as found:
        assert {found.url: 1} == await asyncio.to_thread(found.swap, weights(1), 1)
    assert ["update"] == stub.asked


async def test_a_load_that_failed_is_refused_with_its_reason_and_leaves_it_paused(weights):
    """Under which weights it would sample nobody knows; it is tried again and again."""
    stub = SglangStub()
    stub.refuses_load = "the architectures differ"
    async with engines(stub, timeout_s=1.0) as found:
        with pytest.raises(EngineRefused, match="the architectures differ"):
            await asyncio.to_thread(found.swap, weights(1), 1)
        assert stub.paused
        stub.refuses_load = ""
        async with asyncio.timeout(60):
            while stub.paused:
                await asyncio.sleep(0.01)
    assert ("1", sha256_of(weights(1) / WEIGHTS)) == stub.served[-1]


async def test_one_that_was_started_anew_is_loaded_again(weights):
    """It says of its weights that no trainer named them."""
    stub = SglangStub()
    async with engines(stub) as found:
        await asyncio.to_thread(found.swap, weights(1), 1)
        stub.label, stub.weights = "default", "of the start"
        async with asyncio.timeout(60):
            while stub.label != "1":
                await asyncio.sleep(0.01)
    assert ("1", sha256_of(weights(1) / WEIGHTS)) == stub.served[-1]


async def test_an_engine_is_recognized_by_what_it_says_of_itself(weights):
    """And asked again once it was away."""
    async with listening(SglangStub().app()) as url:
        client = RecognizedEngine(url)
        await client.answers()
        assert isinstance(client._client, SglangEngine)
        assert 0 == await client.serves()
    with pytest.raises(EngineDown):
        await client.serves()
    assert client._client is None
    with WeightServer() as server:
        client = RecognizedEngine(server.url)
        await client.answers()
        assert isinstance(client._client, VllmEngine)


@pytest.fixture(params=["memory", "sglang", "vllm"])
async def client(request):
    """Each kind of client, over its engine."""
    if request.param == "memory":
        yield MemoryEngine()
    elif request.param == "sglang":
        async with listening(SglangStub().app()) as url:
            yield SglangEngine(url)
    else:
        with WeightServer() as server:
            yield VllmEngine(server.url)


async def test_every_client_loads_what_it_is_told_and_says_so(client, weights):
    """One suite for the engine in memory and for those over HTTP."""
    began = []
    await client.answers()
    assert 0 == await client.serves()
    for version in (3, 4):
        await client.load(weights(version), version, lambda: began.append(1))
        assert version == await client.serves()
    assert 2 == len(began)


async def test_the_engine_in_memory_can_be_away_and_can_refuse(weights):
    """As those over HTTP are and do."""
    client = MemoryEngine()
    client.refuses = "no room"
    with pytest.raises(EngineRefused, match="no room"):
        await client.load(weights(1), 1, lambda: None)
    client.down = True
    with pytest.raises(EngineDown):
        await client.answers()
    assert [(0, None)] == client.served


async def test_adapters_are_loaded_under_names_of_their_own_and_forgotten(weights):
    """By its own routes, without a pause; what it will not load is refused in its words."""
    stub = SglangStub()
    async with listening(stub.app()) as url:
        made = RecognizedEngine(
            url, through=partial(AdapterClient, terms=AdapterTerms("policy", 4, kept=1))
        )
        for version in (1, 2):
            await made.load(weights(version), version, lambda: None)
        assert ["load policy-v1", "load policy-v2", "unload policy-v1"] == stub.asked
        assert {"policy-v2": str(weights(2))} == stub.adapters
        assert 2 == await made.serves()
        stub.refuses_load = "rank 4 is beyond 2"
        with pytest.raises(EngineRefused, match=r"rank 4 is beyond 2.*--enable-lora"):
            await made.load(weights(3), 3, lambda: None)
