"""LoRA adapters beside the small engine's model; calls choose one by its name.

Written in torch alone: the engine needs no peft, and says the same as peft to rounding.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from odradek.trainer.adapters import files
from odradek.trainer.errors import BadAdapter, UnsupportedRequest
from odradek.trainer.weights.client import UNNAMED


@dataclass(frozen=True, eq=False)
class LoadedAdapter:
    """An adapter in the memory of the model that it belongs to.

    Attributes:
        name: What calls name.
        version: Of the policy; 0 where the name ends in none.
        layers: Each adapted layer with its A of the shape (rank, inputs) and its B of (outputs,
            rank).
        scale: By what their product is multiplied.
    """

    name: str
    version: int
    layers: tuple[tuple[torch.nn.Linear, torch.Tensor, torch.Tensor], ...]
    scale: float


def load(model: Any, name: str, folder: Path) -> LoadedAdapter:
    """Read an adapter. Raises UnsupportedRequest where it is none, or of another model."""
    try:
        shape, tensors = files.read(folder)
        pairs = files.pairs(tensors)
    except BadAdapter as error:
        raise UnsupportedRequest(str(error)) from error
    layers = []
    for module, (into, out) in pairs.items():
        layer = dict(model.named_modules()).get(module)
        if not isinstance(layer, torch.nn.Linear) or (
            (into.shape[1], out.shape[0]) != (layer.in_features, layer.out_features)
        ):
            raise UnsupportedRequest(f"the adapter in {folder} is of another model ({module})")
        layers.append((layer, into.to(layer.weight), out.to(layer.weight)))
    version = name.rpartition("-v")[2]
    number = int(version) if version.isascii() and version.isdigit() else UNNAMED
    return LoadedAdapter(name, number, tuple(layers), shape.scale)


@contextlib.contextmanager
def applied(adapter: LoadedAdapter | None) -> Iterator[None]:
    """A block in which the model is the one with an adapter; with None, the model itself."""
    with contextlib.ExitStack() as hooks:
        for layer, into, out in adapter.layers if adapter is not None else ():
            hook = layer.register_forward_hook(_Adds(into, out, adapter.scale if adapter else 0.0))
            hooks.callback(hook.remove)
        yield


class _Adds:
    """Adds an adapter's product to what a layer says, in peft's order."""

    def __init__(self, into: torch.Tensor, out: torch.Tensor, scale: float) -> None:
        self._into = into
        self._out = out
        self._scale = scale

    def __call__(self, layer: Any, inputs: tuple[torch.Tensor, ...], said: torch.Tensor) -> Any:
        del layer
        linear = torch.nn.functional.linear
        return said + linear(linear(inputs[0], self._into), self._out) * self._scale
