"""Tensors in files of a bounded size: the library's bytes, hashed on the way, loaded by transformers."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from odradek.trainer.commit.durable_files import sha256_of
from odradek.trainer.commit.tensor_files import INDEX, WEIGHTS, digest_of
from odradek.trainer.models import load_model
from odradek.trainer.saving.model_files import model_tensors
from odradek.trainer.saving.shards import KINDS, MODEL, pieces, shard_names, split, write_tensors

pytestmark = pytest.mark.torch

SMALL = {
    "vocab_size": 60,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "head_dim": 8,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def test_the_bytes_are_those_that_the_library_writes():
    """Of every kind of tensor that training has, of none, of no dimension, and of views."""
    tensors = {
        f"a-{kind}-ä".removeprefix("a-torch."): torch.arange(6).reshape(2, 3).to(kind).T
        for kind in KINDS
    }
    tensors |= {"step": torch.tensor(3.0), "none": torch.zeros(0, 4), "flag": torch.tensor(1)}
    plain = {name: tensor.contiguous() for name, tensor in tensors.items()}
    assert save(plain, metadata={"format": "pt"}) == b"".join(map(bytes, pieces(tensors)))
    assert save({}, metadata={"format": "pt"}) == b"".join(map(bytes, pieces({})))


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(1, 60))
def test_every_tensor_is_in_one_shard_and_no_shard_is_too_large(sizes, most):
    """In their order, and none of the shards could take the first tensor of the next."""
    named = {f"t{at}": size for at, size in enumerate(sizes)}
    shards = split(named, most)
    assert list(named) == [name for shard in shards for name in shard]
    filled = [sum(named[name] for name in shard) for shard in shards]
    for at, shard in enumerate(shards):
        assert filled[at] <= most or len(shard) == 1
        assert at == 0 or filled[at - 1] + named[shard[0]] > most


@pytest.fixture(params=["tied", "experts"])
def model(request):
    """A model with one table for embeddings and head; one whose experts are put together."""
    torch.manual_seed(0)
    if request.param == "tied":
        return Qwen3ForCausalLM(Qwen3Config(**SMALL, tie_word_embeddings=True))
    return Qwen3MoeForCausalLM(
        Qwen3MoeConfig(**SMALL, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=8)
    )


def test_a_models_folder_has_what_transformers_writes(model, tmp_path):
    """The same names and the same numbers: nothing is kept under a name of ours."""
    model.save_pretrained(tmp_path)
    written = load_file(tmp_path / WEIGHTS)
    ours = model_tensors(model, model.state_dict())
    assert written.keys() == ours.keys()
    assert [] == [name for name in written if not torch.equal(written[name], ours[name])]


@pytest.mark.parametrize("most", [10**9, 4000])
def test_a_folder_of_shards_is_the_same_model_and_is_held_against_one_digest(model, tmp_path, most):
    """However many there are; a changed shard, or one that is gone, is none of that digest."""
    model.save_pretrained(tmp_path)
    (tmp_path / WEIGHTS).unlink()
    digest = write_tensors(tmp_path, MODEL, model_tensors(model, model.state_dict()), most=most)
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert shard_names(MODEL, len(files)) == files
    assert (len(files) > 2) == (most == 4000)
    assert all((tmp_path / name).stat().st_size < 9000 for name in files) or most > 4000
    loaded = load_model(tmp_path).state_dict()
    assert [] == [n for n, v in model.state_dict().items() if not torch.equal(v, loaded[n])]
    assert (
        digest == digest_of(tmp_path) == sha256_of(tmp_path / (INDEX if most == 4000 else WEIGHTS))
    )
    (tmp_path / files[-1]).write_bytes(b"x" + (tmp_path / files[-1]).read_bytes()[1:])
    assert digest != digest_of(tmp_path)
    (tmp_path / files[-1]).unlink()
    assert digest != digest_of(tmp_path)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/hostname", ""])
def test_an_index_names_no_file_outside_its_folder(tmp_path, name):
    """It comes from whoever may write there."""
    folder = tmp_path / "v1"
    folder.mkdir()
    (tmp_path / "secret.safetensors").write_bytes(b"s")
    sums = {name: sha256_of(tmp_path / "secret.safetensors")}
    (folder / INDEX).write_text(json.dumps({"metadata": {"sha256": sums}, "weight_map": {}}))
    assert "" == digest_of(folder)


def test_floats_are_rounded_as_they_are_written_and_nothing_else_is(tmp_path):
    """What engines get in bfloat16 is what they would have made of float32."""
    tensors = {"w": torch.randn(5, 7), "n": torch.arange(3)}
    write_tensors(tmp_path, MODEL, tensors, dtype=torch.bfloat16)
    loaded = load_file(tmp_path / WEIGHTS)
    assert torch.equal(tensors["w"].to(torch.bfloat16), loaded["w"])
    assert torch.equal(tensors["n"], loaded["n"])
