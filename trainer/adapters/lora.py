"""A LoRA adapter inside a model: only its matrices are trained, the model's own stay still."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Self

import torch
from safetensors.torch import load_file

from odradek.trainer.adapters import base, files
from odradek.trainer.adapters.shape import (
    ADAPTER_WEIGHTS,
    INSTANCE,
    AdapterShape,
    model_name,
    targets_of,
)
from odradek.trainer.errors import BadSettings
from odradek.trainer.saving.run_checkpoints import RunState
from odradek.trainer.settings import TrainerSettings

EXTRA: Final = "pip install 'odradek[lora]'"


def require_peft(settings: TrainerSettings) -> None:
    """Raise BadSettings where an adapter is to be trained and peft is not installed."""
    if settings.lora_rank and find_spec("peft") is None:
        raise BadSettings(
            f"lora_rank is {settings.lora_rank}, which needs peft: {EXTRA}, or set lora_rank = 0"
        )


class LoraAdapter:
    """The adapter of a model, which it changes in place.

    Args:
        model: With our head or without; nothing of it is trained but the adapter from here on.
        settings: Of the run.
        digest: Of the base model.

    Raises BadSettings where the targets match no layer, or peft is not installed.
    """

    def __init__(self, model: Any, settings: TrainerSettings, digest: str) -> None:
        require_peft(settings)
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.lora import LoraLayer

        modules = _chosen_layers(model, settings.lora_targets)
        # Where a model is on by then, and what was drawn before, must not change the adapter.
        torch.manual_seed(settings.seed)
        config = LoraConfig(
            r=settings.lora_rank,
            lora_alpha=settings.lora_alpha,
            lora_dropout=settings.lora_dropout,
            use_rslora=settings.lora_rslora,
            target_modules=modules,
        )
        inject_adapter_in_model(config, model, adapter_name=INSTANCE)
        self._model = model
        self._layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
        self._settings = settings
        self._digest = digest

    @classmethod
    def of(cls, model: Any, settings: TrainerSettings, checkpoint: Path | None) -> Self | None:
        """The adapter of a run, from its checkpoint or new; None where all weights are trained."""
        if not settings.lora_rank:
            return None
        if checkpoint is None:
            return cls(model, settings, base.digest_of(Path(settings.model)))
        adapter = cls(model, settings, base.read(checkpoint)[1])
        adapter.load(checkpoint)
        return adapter

    @property
    def shape(self) -> AdapterShape:
        """What its matrices mean."""
        given = self._settings
        targets = targets_of(self.tensors())
        return AdapterShape(given.lora_rank, given.lora_alpha, given.lora_rslora, targets)

    def tensors(self) -> dict[str, torch.nn.Parameter]:
        """Its matrices, by their names in the model; a model has no other trained parameters."""
        named = self._model.named_parameters()
        return {name: parameter for name, parameter in named if parameter.requires_grad}

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Its matrices, in the model's order."""
        yield from self.tensors().values()

    def begin(self, *, halved: bool) -> None:
        """Get ready to train, once the model was tried.

        Args:
            halved: Whether products are taken in bfloat16. Then frozen matrices that have an
                adapter are kept in it: autocast would round them to it at each pass, so no bit of a
                step changes, and they take half the memory.
        """
        for layer in self._layers:
            if halved:
                layer.get_base_layer().to(torch.bfloat16)
            dropout = layer.lora_dropout[INSTANCE]
            if isinstance(dropout, torch.nn.Dropout):
                dropout.p = self._settings.lora_dropout

    @contextlib.contextmanager
    def off(self) -> Iterator[None]:
        """A block in which the model is the one that the run began with."""
        self._enable(on=False)
        try:
            yield
        finally:
            self._enable(on=True)

    def _enable(self, *, on: bool) -> None:
        for layer in self._layers:
            layer.enable_adapters(on)

    def state(self) -> RunState:
        """What a checkpoint holds of it: matrices, what they mean, and which model they are of."""
        state = files.state_of(self.tensors(), self.shape, base=self._settings.model)
        named = base.named(self._settings.model, self._digest)
        return replace(state, files={**state.files, base.BASE: named})

    @torch.no_grad()
    def load(self, folder: Path) -> None:
        """Take the matrices of a checkpoint. Raises BadSettings where they are of other layers."""
        tensors = load_file(folder / ADAPTER_WEIGHTS)
        own = self.tensors()
        stored = {model_name(name): tensor for name, tensor in tensors.items()}
        if own.keys() != stored.keys():
            odd = min(own.keys() ^ stored.keys())
            raise BadSettings(
                f"the adapter in {folder} is of other layers than lora_targets names ({odd}): set "
                f"lora_targets = {','.join(targets_of(tensors))}, or choose another output_dir and "
                "run"
            )
        for name, tensor in stored.items():
            own[name].copy_(tensor)


def _chosen_layers(model: Any, targets: str) -> list[str]:
    """Names of the linear layers that get an adapter.

    Args:
        model: Whose parameters are frozen where they are not to be trained.
        targets: Last words of their names, comma separated; "" for all of them but the head, whose
            scores are computed without its module.

    Raises BadSettings where a target matches nothing.
    """
    head = model.get_output_embeddings()
    layers = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and module is not head
        and module.weight.requires_grad
    ]
    words = [word.strip() for word in targets.split(",") if word.strip()]
    for word in words:
        if not any(_ends(name, word) for name in layers):
            there = ", ".join(sorted({name.rpartition(".")[2] for name in layers})) or "none"
            raise BadSettings(
                f"lora_targets names {word!r}, and no linear layer of the model ends so; it has "
                f"{there} (its head gets no adapter)"
            )
    if not layers:
        raise BadSettings(
            "lora_rank is above 0, and the model has no linear layer that could get an adapter: "
            "set lora_rank = 0, or choose another model"
        )
    return [name for name in layers if not words or any(_ends(name, word) for word in words)]


def _ends(name: str, word: str) -> bool:
    return f".{name}".endswith(f".{word}")
