"""What a step costs: operations against torch's own count, rates, seconds by part, memory, a trace."""

import gzip
import itertools
import json
from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from odradek.trainer.measure.flops import ModelCost, cost_of
from odradek.trainer.measure.memory import MB, MemoryMeter
from odradek.trainer.measure.meter import StepMeter
from odradek.trainer.measure.profile import ASKED, StepProfiler
from odradek.trainer.measure.speed import PEAK_TFLOPS, peak_flops, rates
from odradek.trainer.measure.times import PARTS, StepTimes
from odradek.trainer.models import load_model
from tests.support.trainer.model_families import SIZES

pytestmark = pytest.mark.torch

DENSE = {
    "Llama": {},
    "Qwen3": {"tie_word_embeddings": True},
    "GPTNeoX": {"num_key_value_heads": ..., "head_dim": ...},
    "Granite": {"num_key_value_heads": 2},
}


def made(family, **more):
    """A small random model, without anything drawn from a hub."""
    given_ = {**SIZES, **more, "attn_implementation": "eager"}
    config = getattr(transformers, f"{family}Config")(
        **{name: value for name, value in given_.items() if value is not ...}
    )
    return getattr(transformers, f"{family}ForCausalLM")(config)


def shapes_of(model):
    return [(name, tuple(tensor.shape)) for name, tensor in model.named_parameters()]


@pytest.mark.parametrize("family", DENSE)
def test_a_step_has_as_many_operations_as_torch_counts(family):
    """Eager attention computes all pairs; head and layers are each counted once, tied or not."""
    model, n = made(family, **DENSE[family]), 24
    ids = torch.arange(n)[None] % SIZES["vocab_size"]
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, use_cache=False).logits.sum().backward()
    cost = cost_of(model.config, shapes_of(model))
    assert counter.get_total_flops() == pytest.approx(cost.step(n, n, n * n), rel=0.005)


def test_a_large_model_has_the_published_cost():
    """Llama 3.1 8B: 8.03e9 weights, 0.53e9 of them a table that is only looked up: 6 N + 12 L H Q T."""
    config = transformers.LlamaConfig(
        vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
        num_attention_heads=32, num_key_value_heads=8, tie_word_embeddings=False,
    )  # fmt: skip
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    cost = cost_of(config, shapes_of(model))
    assert 8.030e9 == pytest.approx(cost.layer_weights + 2 * cost.head_weights, rel=1e-3)
    n = 8192
    per_token = 6 * (cost.layer_weights + cost.head_weights) + 12 * 32 * 32 * 128 * n
    assert per_token * n == pytest.approx(cost.step(n, n, n * n))


def test_of_experts_only_those_count_that_a_token_is_sent_to():
    """Two of eight: a quarter of their weights, all of the router's."""
    few, many = (
        cost_of(model.config, shapes_of(model))
        for model in (
            made("Mixtral", num_local_experts=8, num_experts_per_tok=2),
            made("Mixtral", num_local_experts=8, num_experts_per_tok=8),
        )
    )
    experts = 8 * 3 * SIZES["hidden_size"] * SIZES["intermediate_size"] * SIZES["num_hidden_layers"]
    assert experts * 3 // 4 == many.layer_weights - few.layer_weights
    assert many.head_weights == few.head_weights == 103 * 32


def test_mfu_is_the_share_of_what_the_card_could_have_done():
    """An H100 in bf16 for two seconds, at half its peak; an unknown card has rates and no share."""
    peak = peak_flops("NVIDIA H100 80GB HBM3", "bf16")
    assert 989.4e12 == peak
    told = rates(tokens=5000.0, operations=989.4e12, seconds=2.0, peak=peak)
    assert {"tokens_per_s": 2500.0, "tflops": 494.7, "mfu": 0.5} == pytest.approx(told)
    assert {"tokens_per_s", "tflops"} == set(rates(tokens=1, operations=1, seconds=1, peak=None))
    assert {} == rates(tokens=1, operations=1, seconds=0.0, peak=peak)


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("NVIDIA H200", 494.7e12),
        ("NVIDIA H200 NVL", 417.5e12),
        ("NVIDIA H100 NVL", None),
        ("NVIDIA H100 80GB HBM3", 494.7e12),
        ("NVIDIA GB200", 1250e12),
        ("NVIDIA B200", 1100e12),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA H20", None),
        ("NVIDIA H100 PCIe", 378e12),
        ("NVIDIA A100-SXM4-80GB", 156e12),
        ("NVIDIA RTX A1000", None),
        ("NVIDIA A100-10C", None),
        ("NVIDIA A10G", None),
        ("NVIDIA A10", 62.5e12),
        ("NVIDIA L40S", 183e12),
        ("NVIDIA L40", 90.5e12),
        ("NVIDIA L4", 60e12),
        ("NVIDIA GeForce RTX 4090", 82.6e12),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 3090 Ti", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("cpu", None),
    ],
)
def test_a_card_is_known_by_its_name_and_not_by_anothers(device, expected):
    """Names that hold each other are told apart, and a slice or a laptop's is no whole card."""
    assert expected == peak_flops(device, "tf32")


def test_no_arithmetic_is_quicker_than_a_coarser_one():
    """bf16, TF32, fp32, in this order, for every card."""
    assert all(list(row) == sorted(row, reverse=True) for row in PEAK_TFLOPS.values())


class Clock:
    """Moves when it is told to."""

    now = 100.0

    def __call__(self):
        return self.now


def test_a_part_does_not_count_what_a_part_inside_it_took():
    """And the next step begins with nothing."""
    clock = Clock()
    times = StepTimes(clock)
    with times.part("forward"):
        clock.now += 1
        with times.part("plan"):
            clock.now += 10
        clock.now += 2
    clock.now += 1000
    with times.part("forward"):
        clock.now += 4
    assert {"forward_s": 7, "plan_s": 10} == times.finish()
    assert {} == times.finish()


@given(st.recursive(st.integers(0, 9), lambda inner: st.lists(st.tuples(st.sampled_from(PARTS), inner), max_size=4), max_leaves=12))  # fmt: skip
def test_parts_add_up_to_the_time_that_went_by_in_them(tree):
    """However they are nested, no second is counted twice and none is lost."""
    clock = Clock()
    times = StepTimes(clock)

    def walk(node):
        if isinstance(node, int):
            clock.now += node
            return
        for name, inner in node:
            with times.part(name):
                walk(inner)

    began = clock.now
    with times.part("wait"):
        walk(tree)
    assert clock.now - began == sum(times.finish().values())


def test_the_clock_is_right_where_a_part_ends_by_an_error():
    """What follows it is not counted for it."""
    clock = Clock()
    times = StepTimes(clock)
    with pytest.raises(MemoryError), times.part("forward"):
        clock.now += 1
        raise MemoryError
    clock.now += 5
    with times.part("plan"):
        clock.now += 2
    assert {"forward_s": 1, "plan_s": 2} == times.finish()


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="a peak of Linux")
def test_a_peak_of_memory_is_of_its_step():
    """64 MB that are gone by the end are in this step's peak, and not in the next one's."""
    meter = MemoryMeter(torch.device("cpu"))
    before = meter.read()
    block = torch.ones(64 * 2**20 // 4)
    del block
    during, after = meter.read(), meter.read()
    assert during["peak_memory_mb"] > before["memory_mb"] + 60 * 2**20 / MB
    assert after["peak_memory_mb"] < during["peak_memory_mb"]


def test_a_step_is_traced_when_a_file_asks_for_it(tmp_path):
    """The next step only; the file is taken away, and the trace has the step's operations."""
    profiler = StepProfiler(tmp_path)
    profiler.begin()
    assert None is profiler.end(1)

    (tmp_path / ASKED).touch()
    profiler.begin()
    torch.ones(8, 8) @ torch.ones(8, 8)
    path = profiler.end(2)
    assert tmp_path / "profile-step-2.json.gz" == path
    with gzip.open(path) as file:
        names = {event.get("name") for event in json.load(file)["traceEvents"]}
    assert "aten::mm" in names

    profiler.begin()
    assert None is profiler.end(3)
    assert [path] == list(tmp_path.iterdir())


def test_a_trace_that_cannot_be_written_costs_no_step(tmp_path, caplog):
    """A full disk, or a folder that is gone: a warning."""
    (tmp_path / ASKED).touch()
    profiler = StepProfiler(tmp_path)
    profiler.begin()
    (tmp_path / "profile-step-4.json.gz").mkdir()
    assert None is profiler.end(4)
    assert "the trace of step 4 cannot be written" in caplog.text


def test_a_profile_of_a_step_that_never_ended_is_dropped(tmp_path):
    """A start that ends for want of rows leaves no profiler running."""
    profiler = StepProfiler(tmp_path)
    (tmp_path / ASKED).touch()
    profiler.begin()
    profiler.begin()
    assert None is profiler.end(5)


def test_a_step_of_a_trainer_is_measured_and_traced_when_asked_for(groups, bench):
    """Parts add up to the step; tokens are those of the step; one step of two has a trace."""
    made = bench(groups, max_steps=2, save_every=1)
    folder = made.settings.output_dir
    folder.mkdir(exist_ok=True)
    (folder / ASKED).touch()
    made.trainer.run()
    first, second = (step.metrics for step in made.announced.steps if step.optimized)
    for metrics in (first, second):
        parts = metrics["plan_s"] + metrics["forward_s"] + metrics["optimizer_s"]
        assert metrics["train_s"] == pytest.approx(parts)
        assert min(metrics[f"{part}_s"] for part in (*PARTS, "optimizer", "checkpoint")) > 0
        seconds = metrics["tokens"] / metrics["tokens_per_s"]
        assert metrics["train_s"] == pytest.approx(seconds)
        assert 0 < metrics["memory_mb"] <= metrics["peak_memory_mb"]
        assert "mfu" not in metrics
    assert ["profile-step-1.json.gz"] == [path.name for path in folder.glob("profile*")]


def test_a_packed_token_may_look_at_what_is_before_it_in_its_row(tiny, tmp_path):
    """Two rows of 4 and 3 tokens that share 2: 1 + 2 + 3 + 4 + 3 pairs of 5 packed tokens."""
    model = load_model(tiny)
    meter = StepMeter(model, tmp_path, "float32", clock=itertools.count().__next__)
    cost = cost_of(model.config, shapes_of(model))
    meter.add(torch.tensor([0, 1, 2, 3, 2]), 3)
    meter.forget()
    meter.begin()
    meter.add(torch.tensor([0, 1, 2, 3, 2]), 3)
    metrics = meter.finish(1)
    assert cost.step(5, 3, 13) / 1e12 == pytest.approx(metrics["tflops"] * metrics["train_s"])
    assert 5 == metrics["tokens_per_s"] * metrics["train_s"]


def test_a_cost_counts_attention_by_pairs():
    """Half the pairs, as under a causal mask, are half the attention and all of the rest."""
    cost = ModelCost(layer_weights=100, head_weights=10, attention_width=8)
    assert 3 * (2 * 100 * 7 + 2 * 10 * 3 + 4 * 8 * 28) == cost.step(tokens=7, scored=3, pairs=28)
