"""Weights are swapped under a real vLLM while it samples: `scripts/prove vllm` runs this.

Over each swap, one long streaming request is open, from before its pause until after its end: it
holds blocks of the cache, so a reset that does not preempt it does nothing. What is sampled after a
swap is compared with the trainer's own forward pass of the same weights.
"""

import json
from functools import partial

import pytest

from odradek.proxy.engines.member import PoolEngine
from odradek.trainer.weights.vllm import VllmEngine
from tests.support.engines.vllm_engine import vllm
from tests.support.engines.weight_swaps import SAMPLES, trained
from tests.support.trainer.hilo import random_play

pytestmark = [pytest.mark.vllm, pytest.mark.torch, pytest.mark.timeout(1200)]
FRESH = 1e-5
"""The most that a log probability may differ, in nats, and thus k3 too; float32 has 1.2e-6."""
STALE = 1e-3
"""What is far above all rounding: 7e-3 to 7e-2 was seen."""
STEPS = 5
KEPT = "Failed to reset prefix cache"
"""What vLLM's log says of a reset that did nothing."""


class Bare(VllmEngine):
    """Clears no cache that anybody holds: pauses without a reset, and resets as if nobody sampled."""

    async def _post(self, path, **request):
        if path == "/pause":
            request["params"] = {**request["params"], "clear_cache": "false"}
        if path == "/reset_prefix_cache":
            request.pop("params")
        await super()._post(path, **request)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The folder of a tiny model that takes long conversations."""
    from odradek.trainer.engine.tiny import make_tiny

    folder = tmp_path_factory.mktemp("model") / "tiny"
    make_tiny(folder, random_play(256, 0), seed=0, steps=40)
    config = folder / "config.json"
    longer = json.loads(config.read_text()) | {"max_position_embeddings": 8192}
    config.write_text(json.dumps(longer))
    return folder


@pytest.fixture(scope="module")
def engine(tiny, tmp_path_factory):
    """Address and log of a vLLM whose cache knows blocks of 32 tokens."""
    log = tmp_path_factory.mktemp("vllm") / "log"
    with vllm(tiny, log, "--max-model-len", "8192", "--block-size", "32") as url:
        yield url, log


@pytest.fixture
def swapped(tiny, engine, tmp_path, monkeypatch):
    """`swapped(before=, salt=, reset=, ...)`: metrics by step, agents, and resets that did nothing."""
    url, log = engine

    def run(*, before, salt=True, reset=True, steps=3, **settings):
        if not salt:  # as of an engine that has no such field
            takes = property(lambda _: False, lambda *_: None)
            monkeypatch.setattr(PoolEngine, "takes_salt", takes, raising=False)
        client = None if reset else partial(Bare, quiet_s=60, at=lambda _: None)
        nothing = log.read_text().count(KEPT)
        metrics, agents = trained(
            tiny, tmp_path, url, steps=steps, before=before, client=client, **settings
        )
        nothing = log.read_text().count(KEPT) - nothing
        assert steps == len(metrics)
        assert steps + 1 == len(agents.held)
        worst = max(step["mismatch_max"] for step in metrics)
        print(f"salt {salt}, reset {reset}: fresh rows differ by {worst:.1e} nats at most in "
              f"{steps} steps; {nothing} resets did nothing")  # fmt: skip
        return metrics, agents, nothing

    return run


@pytest.mark.parametrize("continuation", ["render", "bridge"])
def test_what_is_fresh_after_a_swap_rests_on_nothing_old(swapped, continuation):
    """Salted and reset, whether the next prompt is rendered or carried on."""
    before = {"render": 1000, "bridge": 2000}[continuation]
    metrics, agents, kept = swapped(before=before, steps=STEPS, continuation=continuation)
    assert 0 == kept
    for step in metrics:
        assert FRESH > step["mismatch_max"]
        assert FRESH > abs(step["mismatch_k3"])
    for n in range(1, STEPS):  # between swap and announcement: the new weights, under the old salt
        early = [agents.turns(f"early-{n}-{sample}") for sample in range(SAMPLES)]
        late = [agents.turns(f"late-{n}-{sample}") for sample in range(SAMPLES)]
        assert {before + n} == {turn.cache_salt for turns in early for turn in turns}
        assert {before + n + 1} == {turn.cache_salt for turns in late for turn in turns}


@pytest.mark.parametrize(("before", "kept"), [(3000, "salt"), (4000, "reset")])
def test_each_of_salt_and_reset_is_enough_for_what_is_fresh(swapped, before, kept):
    """The salt, where no reset succeeds; the reset, where an engine takes no salt."""
    metrics, _, nothing = swapped(before=before, salt=kept == "salt", reset=kept == "reset")
    assert (kept == "salt") == (nothing > 0)
    assert FRESH > max(step["mismatch_max"] for step in metrics)


def test_what_is_sampled_before_the_announcement_is_old_where_no_reset_succeeds(swapped):
    """It reads what the old weights computed; it counts as theirs, so no step calls it fresh."""
    metrics, _, nothing = swapped(before=5000, reset=False)
    assert nothing > 0
    assert FRESH > max(step["mismatch_max"] for step in metrics)
    assert FRESH < max(step.get("mismatch_k3_1", 0) for step in metrics)


def test_without_both_of_them_fresh_rows_rest_on_old_weights(swapped):
    """The control: this is what the others would find if they could not hold."""
    metrics, _, nothing = swapped(before=6000, salt=False, reset=False)
    assert nothing > 0
    assert STALE < max(step["mismatch_max"] for step in metrics)
