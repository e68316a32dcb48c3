"""The optimizer's state as safetensors and JSON: nothing of a checkpoint is ever unpickled."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file

from odradek.trainer.errors import BrokenCheckpoint

OPTIMIZER: Final = "optimizer"
"""How the names of its files begin."""
GROUPS: Final = "optimizer.json"
COUNTS: Final = ("last_epoch", "_step_count")
"""What a resumed scheduler goes on from; its rates are those of the settings."""


def state_of(
    optimizer: torch.optim.Optimizer, scheduler: Any
) -> tuple[dict[str, torch.Tensor], bytes]:
    """What an optimizer remembers, and the rest of `optimizer.json`.

    The tensors are the optimizer's own: copy them before it steps again.
    """
    state = optimizer.state_dict()
    tensors: dict[str, torch.Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for index, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{index}.{name}"] = value
            else:
                plain.setdefault(str(index), {})[name] = value
    stored = {
        "param_groups": state["param_groups"],
        "plain": plain,
        "scheduler": {
            key: value
            for key, value in scheduler.state_dict().items()
            if isinstance(value, (int, float, bool, list))
        },
    }
    return tensors, json.dumps(stored, default=float, sort_keys=True).encode() + b"\n"


def loaded(folder: Path, prefix: str) -> dict[str, torch.Tensor]:
    """The tensors of all files of a folder whose names begin with a prefix."""
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob(f"{prefix}*.safetensors")):
        tensors |= load_file(path)
    return tensors


def load(optimizer: torch.optim.Optimizer, scheduler: Any, folder: Path) -> tuple[str, ...]:
    """Put back what `state_of` gave: what the optimizer remembers and how often it has stepped.

    Learning rate, betas, weight decay and the like stay what the optimizer was made with, so that
    the settings of a start hold, not those of the checkpoint; the learning rate is that of the
    schedule at the checkpoint's step. Returns a line for each that differs.

    Raises BrokenCheckpoint where the state is not one of this optimizer's parameters.
    """
    stored = json.loads((folder / GROUPS).read_text())
    state: dict[int, dict[str, Any]] = {
        int(index): dict(values) for index, values in stored["plain"].items()
    }
    for key, tensor in loaded(folder, OPTIMIZER).items():
        index, name = key.split(".", maxsplit=1)
        state.setdefault(int(index), {})[name] = tensor
    groups = optimizer.state_dict()["param_groups"]
    _check(optimizer, groups, stored["param_groups"], state, folder)
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    counts = {key: stored["scheduler"][key] for key in COUNTS if key in stored["scheduler"]}
    scheduler.load_state_dict({**scheduler.state_dict(), **counts})
    # It sets a rate when it steps, and so far these are the rates of step 0.
    for group, rate, at in zip(
        optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True
    ):
        group["lr"] = rate * at(scheduler.last_epoch)
    return tuple(_changes(groups, stored["param_groups"]))


def _check(
    optimizer: torch.optim.Optimizer,
    groups: list[dict[str, Any]],
    stored: list[dict[str, Any]],
    state: dict[int, dict[str, Any]],
    folder: Path,
) -> None:
    """State goes to parameters by their order: in another order each would get another's state."""
    own = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if [group["params"] for group in groups] != [group["params"] for group in stored] or any(
        index >= len(own) or (value.dim() and value.shape != own[index].shape)
        for index, values in state.items()
        for value in values.values()
        if isinstance(value, torch.Tensor)
    ):
        raise BrokenCheckpoint(
            f"{folder / OPTIMIZER}*.safetensors are of other parameters than the model has: go on "
            "with the versions of torch and transformers that wrote them"
        )


def _changes(groups: list[dict[str, Any]], stored: list[dict[str, Any]]) -> Iterator[str]:
    """A line for each setting that differs from the checkpoint's."""
    for name in _named({}):
        for now, before in zip(groups, stored, strict=True):
            current, former = _named(now)[name], _named(before)[name]
            if current != former:
                yield f"{name} is {current} from here on; the checkpoint was made with {former}"
                break


def _named(group: dict[str, Any]) -> dict[str, Any]:
    """What a person may have changed of a group, by the settings' names."""
    return {
        "learning_rate": group.get("initial_lr", group.get("lr")),
        "adam_beta2": group.get("betas", (None, None))[1],
        "weight_decay": group.get("weight_decay"),
    }
