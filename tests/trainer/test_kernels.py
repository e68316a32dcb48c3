"""Kernels and optimizers that need a card: up to the call that is made, and what has no decay."""

import sys
import types

import pytest
import torch
from transformers.integrations import liger as transformers_liger
from transformers.training_args import OptimizerNames

from odradek.trainer.errors import BadSettings
from odradek.trainer.kernels.compile import compile_layers
from odradek.trainer.kernels.liger import KERNELS, use_liger
from odradek.trainer.placement import require_liger, require_optimizer
from odradek.trainer.plan.memory import MOMENTS
from odradek.trainer.settings import TrainerSettings
from odradek.trainer.step import model_support
from odradek.trainer.step.trl_config import OPTIMIZERS, config_of
from tests.support.trainer.model_families import make
from tests.trainer.test_families import SUITED

pytestmark = pytest.mark.torch


@pytest.fixture
def liger(monkeypatch):
    """What a module that stands in liger-kernel's place was called with."""
    calls = []
    package, module = (
        types.ModuleType("liger_kernel"),
        types.ModuleType("liger_kernel.transformers"),
    )
    module._apply_liger_kernel_to_instance = lambda model, **kinds: calls.append((model, kinds))
    monkeypatch.setitem(sys.modules, "liger_kernel", package)
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", module)
    monkeypatch.setattr(transformers_liger, "is_liger_kernel_available", lambda: True)
    return calls


def test_liger_gets_norms_and_mlps_and_nothing_else(liger, bench):
    """Rotations, the head and its loss stay whose they are."""
    model = bench([]).trainer.model
    use_liger(model)
    ((seen, kinds),) = liger
    assert model is seen
    assert KERNELS == kinds
    assert {"rms_norm", "layer_norm", "swiglu", "geglu"} == {k for k, on in kinds.items() if on}


@pytest.mark.parametrize("name", ["liger", "compile_layers"])
def test_a_kernel_is_turned_on_by_its_setting_alone(bench, monkeypatch, name):
    """Each once, for the model that is trained."""
    calls = []
    for setting, function in (("liger", "use_liger"), ("compile_layers", "compile_layers")):
        monkeypatch.setattr(
            model_support, function, lambda model, setting=setting: calls.append((setting, model))
        )
    bench([], name="without")
    assert [] == calls
    made = bench([], **{name: True})
    assert [(name, made.trainer.model)] == calls


def test_each_layer_is_compiled_by_itself(bench, monkeypatch):
    """With sizes that may differ; a model without such layers is refused."""
    model = bench([]).trainer.model
    calls = []
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **how: calls.append((self, how)), raising=True
    )
    assert 2 == compile_layers(model)
    assert [(layer, {"dynamic": True}) for layer in model.model.layers] == calls
    with pytest.raises(BadSettings, match="compile_layers = false"):
        compile_layers(torch.nn.Linear(1, 1))


@pytest.mark.parametrize(
    ("device", "installed", "says"), [("cpu", True, "needs a GPU"), ("cuda", False, "pip install")]
)
def test_liger_needs_a_card_and_a_library(device, installed, says):
    """In a line that says what to do."""
    require_liger(device, asked=False, installed=False)
    require_liger("cuda", asked=True, installed=True)
    with pytest.raises(BadSettings, match=says.replace("needs", "need")):
        require_liger(device, asked=True, installed=installed)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_is_asked_for_by_its_librarys_name(name, tmp_path):
    """It is known to transformers; the estimate of memory has it, too; bitsandbytes' need a card."""
    settings = TrainerSettings(output_dir=tmp_path, device="cpu", optimizer=name)
    assert OptimizerNames(OPTIMIZERS[name]) == config_of(settings).optim
    assert name in MOMENTS
    require_optimizer(name, "cuda", installed=True)
    if name != "adamw":
        assert OPTIMIZERS[name].startswith(("paged_", "adamw_8bit"))
        with pytest.raises(BadSettings, match="needs a GPU"):
            require_optimizer(name, "cpu", installed=True)


@pytest.mark.parametrize("family", SUITED)
def test_norms_and_biases_have_no_weight_decay(family, bench, tokenizer, tmp_path):
    """Of every family: no vector decays, and every matrix does."""
    config, kind, more, settings = SUITED[family]
    folder = make(tmp_path / "model", tokenizer, config, kind, **more)
    trainer = bench([], model=str(folder), weight_decay=0.1, **settings).trainer
    groups = trainer.create_optimizer().param_groups
    decayed = {p.dim() for group in groups for p in group["params"] if group["weight_decay"] > 0}
    spared = {p.dim() for group in groups for p in group["params"] if group["weight_decay"] == 0}
    assert {1} == spared
    assert 1 not in decayed
    assert {0.1, 0.0} == {group["weight_decay"] for group in groups}
