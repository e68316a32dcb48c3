"""LoRA: only an adapter is trained, its checkpoint holds nothing else, and the model is the reference."""

import gc
import importlib.util
import json
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import PreTrainedModel

from odradek.schemas.http.weights import adapter_name, version_named
from odradek.trainer.adapters import lora
from odradek.trainer.adapters.shape import (
    AdapterShape,
    file_name,
    model_name,
)
from odradek.trainer.commit import checkpoint
from odradek.trainer.engine.tiny import make_tiny
from odradek.trainer.errors import BadAdapter, BadSettings
from odradek.trainer.models import load_model

pytestmark = pytest.mark.torch

LORA = {"lora_rank": 4, "lora_alpha": 8, "learning_rate": 5e-3}
ALL_ON = {**LORA, "lora_dropout": 0.1, "kl": 0.05, "tis": 2.0}
LAYERS = "down_proj,gate_proj,k_proj,o_proj,q_proj,up_proj,v_proj"


def parts(weights):
    """The adapter's matrices, and all other weights by the model's own names."""
    own = {name: w for name, w in weights.items() if "lora_" not in name}
    matrices = {name: w for name, w in weights.items() if "lora_" in name}
    return matrices, {name.replace(".base_layer", ""): w for name, w in own.items()}


def test_only_the_adapter_moves(groups, bench, tiny):
    """Two matrices for each of the fourteen linear layers; not a bit of the model itself."""
    made = bench(groups, max_steps=2, **LORA)
    before, _ = parts(made.weights())
    assert 2 == made.trainer.run()
    matrices, own = parts(made.weights())
    assert 2 * 7 * 2 == len(matrices)
    assert all(not torch.equal(before[name], matrices[name]) for name in matrices)
    assert all(torch.equal(own[name], w) for name, w in load_model(tiny).named_parameters())


def test_the_first_step_sees_the_model_itself(groups, bench):
    """A new adapter changes nothing, so its loss is that of a run that trains all weights."""
    first = [
        bench(groups, max_steps=1, name=str(n), kl=0.1, tis=2.0, **extra)
        for n, extra in enumerate(({}, {"lora_rank": 4}))
    ]
    for made in first:
        made.trainer.run()
    (whole,), (adapted,) = (metrics(made) for made in first)
    assert whole["loss"] == pytest.approx(adapted["loss"], abs=1e-7)


def metrics(made):
    """Of each step that was made."""
    return [step.metrics for step in made.announced.steps if step.optimized]


def loaded_models():
    return sum(issubclass(type(thing), PreTrainedModel) for thing in gc.get_objects()) // 2


def test_the_reference_is_the_model_without_its_adapter(groups, bench, tiny):
    """One model in memory, whatever is compared; its log probabilities are the base model's."""
    gc.collect()
    before = loaded_models()
    made = bench(groups, max_steps=2, **ALL_ON)
    made.trainer.run()
    gc.collect()
    assert before + 1 == loaded_models()
    ids = torch.arange(5, 25)[None]
    model = load_model(tiny)
    expected = model(input_ids=ids).logits
    trained = made.trainer.model.eval()
    trained.set_attn_implementation("sdpa")
    inputs = {"input_ids": ids}
    assert torch.equal(expected, made.trainer._reference(**inputs).logits)
    assert not torch.allclose(expected, trained(**inputs).logits, atol=1e-4)


def test_a_checkpoint_holds_the_adapter_and_what_its_optimizer_remembers(groups, bench):
    """No weight of the model, and nothing of its tokenizer."""
    made = bench(groups, max_steps=1, **ALL_ON)
    made.trainer.run()
    folder = checkpoint.newest(made.settings.output_dir)
    assert {
        "adapter_model.safetensors", "adapter_config.json", "base.json", "optimizer.safetensors",
        "optimizer.json", "proximal.safetensors", "trainer_state.json", "position.json",
        "manifest.json",
    } == {path.name for path in folder.iterdir()}  # fmt: skip
    matrices, _ = parts(made.weights())
    stored = load_file(folder / "adapter_model.safetensors")
    assert {file_name(name) for name in matrices} == stored.keys()
    assert all(torch.equal(stored[file_name(name)], w) for name, w in matrices.items())
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (4, 8, LAYERS.split(",")) == (
        config["r"],
        config["lora_alpha"],
        config["target_modules"],
    )


def test_a_resumed_adapter_is_the_one_of_a_run_that_went_on(groups, bench, resume):
    """Bit for bit, with dropout, a reference and a proximal policy."""
    whole = bench(groups, max_steps=3, name="whole", **ALL_ON)
    whole.trainer.run()
    first = bench(groups, max_steps=1, name="run", **ALL_ON)
    assert 1 == first.trainer.run()
    second = bench(
        groups, max_steps=3, name="run", standing=resume(checkpoint.newest(first.settings.output_dir)),
        **ALL_ON,
    )  # fmt: skip
    assert 3 == second.trainer.run()
    for name, weights in whole.weights().items():
        assert torch.equal(weights, second.weights()[name]), name
    for expected, found in zip(metrics(whole)[1:], metrics(second), strict=True):
        assert all(expected[key] == found[key] for key in ("loss", "grad_norm", "kl"))


def test_dropout_changes_the_step_and_is_off_elsewhere(groups, bench):
    """The loss of a step has it; the log probabilities that tell engine from trainer do not."""
    with_it, without = (
        bench(groups, max_steps=2, name=name, **{**LORA, "lora_dropout": p})
        for name, p in (("with", 0.5), ("without", 0.0))
    )
    with_it.trainer.run()
    without.trainer.run()
    ours, theirs = parts(with_it.weights())[0], parts(without.weights())[0]
    assert all(not torch.equal(ours[name], theirs[name]) for name in ours)


def test_activations_that_are_computed_twice_draw_the_same_dropout(groups, bench):
    """Bit for bit the adapter of a run that keeps them."""
    kept, twice = (
        bench(groups, max_steps=2, name=str(n), gradient_checkpointing=n, **ALL_ON) for n in (0, 1)
    )
    for made in (kept, twice):
        made.trainer.run()
    ours, theirs = parts(kept.weights())[0], parts(twice.weights())[0]
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_peft_loads_a_checkpoint_as_it_is(saved, bench, resume, tiny):
    """Its own way of putting an adapter on a model says what the trainer says."""
    from peft import PeftModel

    trained = bench([], name="run", standing=resume(saved), **LORA).trainer.model.eval()
    trained.set_attn_implementation("sdpa")
    ids = torch.arange(5, 25)[None]
    theirs = PeftModel.from_pretrained(load_model(tiny), saved).eval()
    assert torch.allclose(trained(input_ids=ids).logits, theirs(input_ids=ids).logits, atol=1e-6)


@pytest.fixture
def saved(groups, bench):
    """The settings and the checkpoint of a run with an adapter."""
    made = bench(groups, max_steps=1, name="run", **LORA)
    made.trainer.run()
    return checkpoint.newest(made.settings.output_dir)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"lora_rank": 0}, "set lora_rank = 4"),
        ({"lora_rank": 8}, "set lora_rank = 4"),
        ({"lora_alpha": 16}, "set lora_alpha = 8"),
        ({"lora_rslora": True}, "set lora_rslora = False"),
        ({"lora_targets": "q_proj"}, f"set lora_targets = {LAYERS}"),
    ],
)
def test_an_adapter_of_another_shape_is_refused(saved, bench, resume, changed, says):
    """Its matrices would mean something else; the line says what the checkpoint has."""
    with pytest.raises(BadSettings, match=says):
        bench([], name="run", standing=resume(saved), **{**LORA, **changed})


def test_a_checkpoint_of_all_weights_gets_no_adapter(groups, bench, resume):
    """The adapter's base would be one that nobody else has."""
    made = bench(groups, max_steps=1, name="run")
    made.trainer.run()
    folder = checkpoint.newest(made.settings.output_dir)
    with pytest.raises(BadSettings, match="holds all weights of a model, and lora_rank is 4"):
        bench([], name="run", standing=resume(folder), **LORA)


def test_another_base_model_is_refused_and_the_same_one_elsewhere_is_not(
    saved, bench, resume, tiny, tmp_path
):
    """By its weights and configuration, not by the name of its folder."""
    moved, other, longer = (tmp_path / name for name in ("moved", "other", "longer"))
    shutil.copytree(tiny, moved)
    made = bench([], name="run", standing=resume(saved), model=str(moved), **LORA)
    matrices, _ = parts(made.weights())
    stored = load_file(saved / "adapter_model.safetensors")
    assert all(torch.equal(stored[file_name(name)], w) for name, w in matrices.items())
    make_tiny(other, [], seed=3, steps=0)
    shutil.copytree(tiny, longer)
    config = json.loads((longer / "config.json").read_text())
    config["rms_norm_eps"] = 1e-3
    (longer / "config.json").write_text(json.dumps(config))
    for folder in (other, longer):
        with pytest.raises(BadSettings, match="give the model that the run began with"):
            bench([], name="run", standing=resume(saved), model=str(folder), **LORA)


@pytest.mark.parametrize("targets", ["c_attn", "q_proj,lm_head", "proj", "model"])
def test_targets_that_match_no_layer_are_refused(bench, targets):
    """With the names that there are."""
    with pytest.raises(
        BadSettings, match=r"no linear layer of the model ends so; it has down_proj"
    ):
        bench([], lora_rank=4, lora_targets=targets)


def test_targets_may_name_a_part_of_the_layers(bench):
    """By their last words, of any length."""
    made = bench([], lora_rank=4, lora_targets="q_proj, mlp.up_proj")
    matrices, _ = parts(made.weights())
    assert {"q_proj", "up_proj"} == {
        name.split(".lora_")[0].rpartition(".")[2] for name in matrices
    }


def test_an_adapter_without_peft_is_refused_with_what_to_install(bench, monkeypatch):
    """Before anything is loaded by `odradek train`, too."""
    find = importlib.util.find_spec
    monkeypatch.setattr(lora, "find_spec", lambda name: None if name == "peft" else find(name))
    with pytest.raises(BadSettings, match=r"lora_rank is 4, which needs peft: pip install"):
        bench([], lora_rank=4)
    assert bench([], lora_rank=0)


def test_frozen_matrices_of_sixteen_bits_change_no_bit_of_a_step(groups, bench, monkeypatch):
    """With bfloat16 products they would be rounded at each pass."""
    mixed = {**LORA, "precision": "bfloat16", "max_steps": 2, "kl": 0.1}
    halved = bench(groups, name="halved", **mixed)
    begin = lora.LoraAdapter.begin
    monkeypatch.setattr(lora.LoraAdapter, "begin", lambda self, halved: begin(self, halved=False))
    whole = bench(groups, name="whole", **mixed)
    for made in (halved, whole):
        made.trainer.run()
    kinds = [
        made.trainer.model.model.layers[0].mlp.up_proj.base_layer.weight.dtype
        for made in (halved, whole)
    ]
    assert [torch.bfloat16, torch.float32] == kinds
    ours, theirs = parts(halved.weights())[0], parts(whole.weights())[0]
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


shapes = st.builds(
    AdapterShape,
    rank=st.integers(1, 512), alpha=st.integers(1, 4096), rslora=st.booleans(),
    targets=st.lists(st.sampled_from(LAYERS.split(",")), unique=True).map(sorted).map(tuple),
)  # fmt: skip


@given(shapes)
def test_a_configuration_says_what_the_adapter_is(shape):
    """And nothing else is read out of it."""
    assert shape == AdapterShape.of_config(shape.config("models/start"), "here")
    assert shape.scale == pytest.approx(
        shape.alpha / (shape.rank**0.5 if shape.rslora else shape.rank)
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [("use_dora", True), ("bias", "all"), ("modules_to_save", ["lm_head"]), ("peft_type", "IA3")],
)
def test_another_kind_of_adapter_is_refused(field, value):
    """By the field that makes it one."""
    fields = {**json.loads(AdapterShape(4, 8).config("m")), field: value}
    with pytest.raises(BadAdapter, match=field):
        AdapterShape.of_config(json.dumps(fields).encode(), "here")


@given(st.text("abc.-v0_", max_size=12), st.integers(0, 10**12))
def test_the_name_of_an_adapter_tells_its_version(policy, version):
    """To whoever knows the policy."""
    assert version == version_named(policy, adapter_name(policy, version))
    assert version_named(policy + "x", adapter_name(policy, version)) is None


@given(st.lists(st.sampled_from(["model", "layers", "0", "q_proj"]), min_size=1).map(".".join))
def test_a_parameter_has_one_name_in_files_and_one_in_models(module):
    """Each follows from the other."""
    for side in ("lora_A", "lora_B"):
        name = f"{module}.{side}.default.weight"
        assert name == model_name(file_name(name))
