"""Weights are float32, whatever products are taken in."""

import numpy as np
import pytest
import torch

from odradek.trainer.errors import BadSettings
from odradek.trainer.step.precision import described, resolved, use_tf32

pytestmark = pytest.mark.torch
CPU, GPU = torch.device("cpu"), torch.device("cuda")


def moved(made, before):
    """How far a run has moved the weights, as one vector in float64."""
    after = made.weights()
    return np.concatenate(
        [(after[name] - before[name]).double().flatten().numpy() for name in sorted(before)]
    )


@pytest.mark.parametrize("rate", [1e-6, 2e-3])
def test_bfloat16_products_move_the_weights_as_float32_does(bench, groups, rate):
    """As far to 5 %, at the default learning rate, too, and in the same direction."""
    runs = {}
    for precision in ("float32", "bfloat16"):
        made = bench(groups, max_steps=6, precision=precision, learning_rate=rate, name=precision)
        before = made.weights()
        made.trainer.run()
        assert {torch.float32} == {value.dtype for value in made.weights().values()}
        runs[precision] = moved(made, before)
    exact, mixed = runs["float32"], runs["bfloat16"]
    assert np.linalg.norm(mixed) == pytest.approx(np.linalg.norm(exact), rel=0.05)
    assert exact @ mixed / np.linalg.norm(exact) / np.linalg.norm(mixed) > 0.9


@pytest.mark.parametrize(
    ("precision", "device", "has_it", "expected"),
    [
        ("auto", CPU, False, "float32"),
        ("auto", GPU, True, "bfloat16"),
        ("auto", GPU, False, "float32"),
        ("float32", GPU, True, "float32"),
        ("bfloat16", GPU, True, "bfloat16"),
        ("bfloat16", CPU, False, "bfloat16"),
    ],
)
def test_auto_is_what_the_device_has(monkeypatch, precision, device, has_it, expected):
    """Half of the bits where the hardware computes with them."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: has_it)
    assert expected == resolved(precision, device)


def test_bfloat16_on_a_gpu_without_it_is_refused(monkeypatch):
    """Emulated it would be slower than float32."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    with pytest.raises(BadSettings, match="precision = float32"):
        resolved("bfloat16", GPU)


@pytest.mark.parametrize(
    ("precision", "device", "tf32", "words"),
    [
        ("float32", CPU, True, "float32"),
        ("float32", GPU, False, "float32"),
        ("float32", GPU, True, "float32 weights, TF32 products"),
        ("bfloat16", GPU, True, "float32 weights, bfloat16 products"),
    ],
)
def test_the_start_says_how_numbers_are_kept(precision, device, tf32, words):
    """In one line."""
    assert words == described(precision, device, tf32=tf32)


@pytest.mark.parametrize(("allowed", "setting"), [(True, "high"), (False, "highest")])
def test_tf32_is_one_switch(allowed, setting):
    """Torch's own."""
    before = torch.get_float32_matmul_precision()
    use_tf32(allowed=allowed)
    assert setting == torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(before)
