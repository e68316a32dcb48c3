"""The whole way over SGLang's surface: an agent's call, its turn, a sequence, a swap, the next call.

Tests know a stub made from its documentation, and no real server.
"""

import asyncio

import pytest

from odradek.infra.bus import MemoryAppender
from odradek.proxy.app import Proxy
from odradek.proxy.engines.policy_version import PolicyVersions
from odradek.proxy.server import serving
from odradek.proxy.settings import ProxySettings
from odradek.streams.stages.continuity import Continuity
from odradek.trainer.commit.tensor_files import WEIGHTS
from odradek.trainer.feed.rows import arrays_of
from odradek.trainer.feed.sampling import drawn_of
from odradek.trainer.weights.engines import Engines
from tests.support.engines.sglang_engine import SglangStub
from tests.support.engines.stub_engine import listening
from tests.support.proxy.proxy_bench import KEY, Bench


def sequence_of(turn):
    """What the assembler makes of an episode with this turn."""
    continuity = Continuity()
    continuity.add(turn)
    (sequence,) = continuity.sequences()
    return sequence


async def test_a_call_is_trained_on_and_the_next_one_has_the_new_weights(tmp_path):
    """The trainer's rows have the engine's ids and log probabilities, and each its own version."""
    (tmp_path / WEIGHTS).write_bytes(b"weights")
    stub, log, policy = SglangStub(), MemoryAppender(), PolicyVersions("policy")
    async with listening(stub.app()) as url:
        settings = ProxySettings(port=0, engine_url=url)
        proxy = Proxy(settings, log, keys=[KEY], versions=policy, proves=True)
        trainer = Engines([url])
        async with serving(proxy, shutdown_s=0.1) as proxy_url:
            bench = Bench(stub, log, proxy, proxy_url)
            await bench.ask("one", "e1")
            served = await asyncio.to_thread(trainer.swap, tmp_path, 1)
            policy.current, policy.engines = 1, served
            await bench.ask("two", "e2")
            for client in bench.clients:
                await client.close()
        await asyncio.to_thread(trainer.close)
    for episode, version in (("e1", 0), ("e2", 1)):
        (turn,) = bench.turns(episode)
        sequence = sequence_of(turn)
        ids, mask, logprobs = arrays_of(sequence)
        drawn = drawn_of(sequence, len(ids))
        assert ("", "") == (turn.untrainable, drawn.unfit)
        assert mask.tolist() == drawn.trained.tolist()
        assert [-i / 1000 for i in ids[mask]] == pytest.approx(logprobs[mask].tolist())
        assert {version} == {span.version for span in sequence.versions}
        assert version == turn.cache_salt
        assert mask.sum() == sum(span.end - span.start for span in sequence.versions)
