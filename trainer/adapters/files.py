"""An adapter's folder: its matrices as safetensors, and what they mean beside them."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from odradek.trainer.adapters.shape import (
    ADAPTER,
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CONFIG_DIGEST,
    AdapterShape,
    digest_of,
    file_name,
    parts_of,
    targets_of,
)
from odradek.trainer.commit.durable_files import write_summed
from odradek.trainer.errors import BadAdapter
from odradek.trainer.saving.run_checkpoints import RunState
from odradek.trainer.saving.shards import pieces


def state_of(tensors: Mapping[str, torch.Tensor], shape: AdapterShape, *, base: str) -> RunState:
    """What an adapter's folder holds.

    Args:
        tensors: By their names in the model.
        shape: Its targets are taken from the names.
        base: Folder of the model that it belongs to.
    """
    config = AdapterShape(shape.rank, shape.alpha, shape.rslora, targets_of(tensors)).config(base)
    stored = {file_name(name): tensor.detach() for name, tensor in tensors.items()}
    return RunState(
        {ADAPTER: stored}, {ADAPTER_CONFIG: config}, {ADAPTER: {CONFIG_DIGEST: digest_of(config)}}
    )


def write(
    folder: Path, tensors: Mapping[str, torch.Tensor], shape: AdapterShape, *, base: str
) -> str:
    """Write an adapter durably into a folder that is there; returns its weights' sha256."""
    state = state_of(tensors, shape, base=base)
    for name, content in state.files.items():
        write_summed(folder / name, [content])
    written = pieces(state.tensors[ADAPTER], metadata=state.metadata[ADAPTER])
    return write_summed(folder / ADAPTER_WEIGHTS, written).sha256


def _shape_of(folder: Path) -> AdapterShape:
    """What a folder's matrices mean. Raises BadAdapter."""
    path = folder / ADAPTER_CONFIG
    try:
        return AdapterShape.of_config(path.read_bytes(), str(path))
    except OSError as error:
        raise BadAdapter(f"{folder} is no adapter: {path.name} cannot be read ({error})") from error


def read(folder: Path) -> tuple[AdapterShape, dict[str, torch.Tensor]]:
    """An adapter's shape, and its matrices by their names in the file.

    Raises BadAdapter: unreadable, not a plain LoRA, or a configuration that is not the one that was
    written with the matrices.
    """
    shape = _shape_of(folder)
    path = folder / ADAPTER_WEIGHTS
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    except (OSError, SafetensorError) as error:
        raise BadAdapter(f"the adapter in {folder} cannot be read: {error}") from error
    stated = metadata.get(CONFIG_DIGEST)
    if stated is not None and stated != digest_of((folder / ADAPTER_CONFIG).read_bytes()):
        raise BadAdapter(f"{folder / ADAPTER_CONFIG} is not the one that was written with {path}")
    return shape, tensors


def pairs(
    tensors: Mapping[str, torch.Tensor],
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """By module, its A of the shape (rank, inputs) and its B of (outputs, rank).

    Raises BadAdapter where one of a pair is not there, or their ranks differ.
    """
    sides: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        module, side = parts_of(name)
        sides.setdefault(module, {})[side] = tensor
    for module, pair in sides.items():
        if len(pair) < 2 or pair["lora_A"].shape[0] != pair["lora_B"].shape[1]:
            raise BadAdapter(f"the adapter of {module} is not a pair of matrices of one rank")
    return {module: (pair["lora_A"], pair["lora_B"]) for module, pair in sides.items()}
