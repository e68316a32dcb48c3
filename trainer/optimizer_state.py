"""The optimizer's state as safetensors and JSON: nothing of a checkpoint is ever unpickled."""

import json
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file

TENSORS: Final = "optimizer.safetensors"
GROUPS: Final = "optimizer.json"


def save(optimizer: torch.optim.Optimizer, scheduler: Any, folder: Path) -> None:
    """Write `optimizer.safetensors` and `optimizer.json`."""
    state = optimizer.state_dict()
    tensors: dict[str, torch.Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for index, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{index}.{name}"] = value.detach().cpu().contiguous()
            else:
                plain.setdefault(str(index), {})[name] = value
    save_file(tensors, folder / TENSORS)
    told = {
        "param_groups": state["param_groups"],
        "plain": plain,
        "scheduler": {
            key: value
            for key, value in scheduler.state_dict().items()
            if isinstance(value, (int, float, bool, list))
        },
    }
    (folder / GROUPS).write_text(json.dumps(told, default=float, sort_keys=True) + "\n")


def load(optimizer: torch.optim.Optimizer, scheduler: Any, folder: Path) -> None:
    """Put back what `save` wrote; the optimizer must have the same parameters in the same order."""
    told = json.loads((folder / GROUPS).read_text())
    state: dict[int, dict[str, Any]] = {
        int(index): dict(values) for index, values in told["plain"].items()
    }
    for key, tensor in load_file(folder / TENSORS).items():
        index, name = key.split(".", maxsplit=1)
        state.setdefault(int(index), {})[name] = tensor
    groups = told["param_groups"]
    for group in groups:
        if "betas" in group:
            group["betas"] = tuple(group["betas"])
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    scheduler.load_state_dict({**scheduler.state_dict(), **told["scheduler"]})
