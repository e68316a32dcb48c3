"""What is looked at before a step is made, and in files before they are saved, sent or taken."""

import json
import struct

import pytest
import torch
from safetensors.torch import save_file

from odradek.trainer.commit import checkpoint
from odradek.trainer.commit.tensor_files import PIECE, non_finite_tensor
from odradek.trainer.errors import NonFiniteWeights
from odradek.trainer.saving import shards
from odradek.trainer.saving.shards import pieces
from odradek.trainer.weights import finite as guard
from odradek.trainer.weights.directory import DirectoryTransfer
from odradek.trainer.weights.engines import Engines
from odradek.trainer.weights.finite import non_finite, trained_tensors, why_not_step

pytestmark = pytest.mark.torch

NONE = [float("nan"), float("inf"), float("-inf")]


def optimizer_of(weights, gradients, **options):
    """AdamW over one parameter a list, with its gradient."""
    parameters = []
    for values, slope in zip(weights, gradients, strict=True):
        parameter = torch.nn.Parameter(torch.tensor(values))
        parameter.grad = None if slope is None else torch.tensor(slope)
        parameters.append(parameter)
    return torch.optim.AdamW(parameters, **({"lr": 1e-3, "weight_decay": 0.0} | options))


def after(optimizer):
    """Weights and moments once the step is made."""
    optimizer.step()
    tensors = [p.detach() for group in optimizer.param_groups for p in group["params"]]
    return tensors + [v for state in optimizer.state.values() for v in state.values()]


STEPS = {
    "usual": ([[1.0, -1.0]], [[0.1, 0.2]], {}),
    "no gradient": ([[1.0]], [None], {}),
    "a learning rate beyond float32": ([[1.0]], [[0.1]], {"lr": 1e39}),
    "a learning rate that is just too large": ([[3.3e38]], [[-0.1]], {"lr": 3e37}),
    "weight decay": ([[3e38]], [[0.0]], {"lr": 1.0, "weight_decay": 10.0}),
    "a square beyond float32": ([[1.0]], [[1e25]], {}),
    "the second parameter": ([[1.0], [3.3e38]], [[0.1], [-0.1]], {"lr": 3e37}),
    "a parameter that is one number": ([1.0], [1e25], {}),
    "the largest square that fits": ([[1.0]], [[1e19]], {}),
}


@pytest.mark.parametrize("together", [1, 1 << 24])
@pytest.mark.parametrize("name", STEPS)
def test_a_step_is_foreseen_and_not_made(monkeypatch, name, together):
    """What it would make of weights and moments is known before, and nothing is changed."""
    monkeypatch.setattr(guard, "TOGETHER", together)
    weights, gradients, options = STEPS[name]
    optimizer = optimizer_of(weights, gradients, **options)
    before = [parameter.detach().clone() for parameter in optimizer.param_groups[0]["params"]]
    foreseen = why_not_step(optimizer, 0.5, 1.0)
    assert {} == dict(optimizer.state)
    for old, now in zip(before, optimizer.param_groups[0]["params"], strict=True):
        assert torch.equal(old, now)
    try:
        finite = all(bool(torch.isfinite(tensor).all()) for tensor in after(optimizer))
    except RuntimeError:  # torch refuses the number itself
        finite = False
    assert ("" if finite else "weights") == foreseen


def test_a_later_step_is_foreseen_from_its_moments():
    """What the optimizer remembers decides as much as the gradient."""
    optimizer = optimizer_of([[-3.2e38]], [[1.0]], lr=1.5e37)
    assert "" == why_not_step(optimizer, 0.5, 1.0)
    optimizer.step()
    optimizer.param_groups[0]["params"][0].grad = torch.tensor([1.0])
    told = json.dumps(optimizer.state_dict()["param_groups"])
    assert "weights" == why_not_step(optimizer, 0.5, 1.0)
    assert told == json.dumps(optimizer.state_dict()["param_groups"])
    assert 1.0 == next(iter(optimizer.state.values()))["step"].item()


@pytest.mark.parametrize("number", NONE)
def test_loss_and_gradient_are_looked_at_first(number):
    """A loss may be no number where its gradient is one, and the other way round."""
    optimizer = optimizer_of([[1.0]], [[0.1]])
    assert "loss" == why_not_step(optimizer, number, 1.0)
    assert "gradient" == why_not_step(optimizer, 0.5, number)


@pytest.mark.parametrize("number", NONE)
def test_a_tensor_that_is_no_number_is_named(number):
    """Weights by their name, and what the optimizer remembers of them by both."""
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert "" == non_finite(trained_tensors(model, optimizer))
    optimizer.state[model.bias]["exp_avg_sq"][1] = number
    assert "bias (exp_avg_sq)" == non_finite(trained_tensors(model, optimizer))
    with torch.no_grad():
        model.weight[0, 1] = number
    assert "weight" == non_finite(trained_tensors(model, optimizer))
    assert "" == non_finite([])


KINDS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [*NONE, 0.0, -0.0, 1.0, 6e4, -6e4, 6e-8])
def test_a_file_is_read_as_torch_reads_it(tmp_path, kind, number):
    """Every kind of float that a trainer writes."""
    path = tmp_path / "a.safetensors"
    good = torch.arange(5).to(kind)
    bad = torch.tensor([1.0, number, 2.0]).to(kind)
    save_file({"a": good, "b": torch.arange(3), "c": bad}, path, metadata={"format": "pt"})
    assert ("" if torch.isfinite(bad).all() else "c") == non_finite_tensor(path)


def test_a_large_tensor_is_read_to_its_end(tmp_path):
    """The last element of the last piece counts."""
    path = tmp_path / "a.safetensors"
    values = torch.zeros(PIECE // 4 + 3)
    save_file({"a": values}, path)
    assert "" == non_finite_tensor(path)
    values[-1] = float("nan")
    save_file({"a": values}, path)
    assert "a" == non_finite_tensor(path)


@pytest.mark.parametrize(
    "content", [b"", b"short", b"weights" * 100, struct.pack("<Q", 5) + b"{not}" + b"0000"]
)
def test_a_file_that_is_none_of_the_kind_is_somebody_elses_to_refuse(tmp_path, content):
    """It has no tensors that could be no numbers."""
    (tmp_path / "a.safetensors").write_bytes(content)
    assert "" == non_finite_tensor(tmp_path / "a.safetensors")


def filled(**tensors):
    """The files of a checkpoint of one tensor each."""
    return {
        f"{name}.safetensors": pieces({"w": torch.tensor(values)})
        for name, values in tensors.items()
    }


@pytest.mark.parametrize("file", ["model", "optimizer"])
@pytest.mark.parametrize("number", NONE)
def test_no_checkpoint_of_such_weights_is_written(tmp_path, file, number):
    """And those of before stay, however few are kept."""
    checkpoint.write(tmp_path, 1, filled(model=[1.0], optimizer=[1.0]), keep=1, position={})
    spoiled = {"model": [1.0], "optimizer": [1.0], file: [0.0, number]}
    with pytest.raises(NonFiniteWeights, match=f"step 2 is not saved: in {file}.safetensors 'w'"):
        checkpoint.write(tmp_path, 2, filled(**spoiled), keep=1, position={})
    assert tmp_path / "checkpoint-1" == checkpoint.newest(tmp_path)
    assert [1] == [step for step, _ in checkpoint.whole(tmp_path)]


@pytest.mark.parametrize("file", ["model", "optimizer"])
def test_no_checkpoint_of_such_weights_is_taken(tmp_path, monkeypatch, file):
    """One of before this was looked at is passed by, and the one before it is taken."""
    checkpoint.write(tmp_path, 1, filled(model=[1.0], optimizer=[1.0]), keep=3, position={})
    with monkeypatch.context() as patch:
        patch.setattr(shards, "all_finite", lambda *_: True)
        spoiled = {"model": [1.0], "optimizer": [1.0], file: [0.0, float("nan")]}
        checkpoint.write(tmp_path, 2, filled(**spoiled), keep=3, position={})
    told = []
    assert tmp_path / "checkpoint-1" == checkpoint.newest(tmp_path, warn=told.append)
    assert f"checkpoint-2 is not taken: 'w' in {file}.safetensors" in told[0]


@pytest.mark.parametrize("number", NONE)
def test_no_such_weights_are_sent(tmp_path, number):
    """Neither a folder nor a word to an engine is left of them."""
    transfer = DirectoryTransfer(tmp_path / "w", Engines([]), config=None, keep=2)
    transfer.init_weight_transfer()
    transfer.version = 2
    with pytest.raises(NonFiniteWeights, match="version 2 is not sent: 'b'"):
        transfer.send_weights([("a", torch.ones(2)), ("b", torch.tensor([0.0, number]))])
    assert [] == list((tmp_path / "w").iterdir())
    assert "" == transfer.digest
