"""What a folder of transformers holds: a model's tensors by their names there, and the rest."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers.core_model_loading import revert_weight_conversion
from transformers.modeling_utils import remove_tied_weights_from_state_dict

from odradek.trainer.saving.run_checkpoints import RunState
from odradek.trainer.saving.shards import MODEL


def model_tensors(model: Any, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors that a model's folder holds, by name: those of `save_pretrained`.

    Tied weights are there once, and experts that were put together as the model was loaded are
    taken apart. The tensors may share memory with the model's.

    Args:
        model: Of transformers.
        state: Its state, with tensors of the model's own: copies do not tell which are tied.
    """
    ignored = set(model._keys_to_ignore_on_save or ())  # noqa: SLF001 - nothing else says it
    kept = {name: tensor for name, tensor in state.items() if name not in ignored}
    once = remove_tied_weights_from_state_dict(kept, model)
    tensors: dict[str, torch.Tensor] = revert_weight_conversion(model, once)
    return tensors


def weights_of(model: Any) -> RunState:
    """The weights of a model, its own tensors, as a checkpoint holds them."""
    return RunState({MODEL: model_tensors(model, model.state_dict())})


def plain_files(model: Any, tokenizer: Any, scratch: Path) -> dict[str, bytes]:
    """Configuration and tokenizer, by file name: what training does not change.

    Args:
        model: Of transformers.
        tokenizer: Of transformers.
        scratch: A folder to render them in, for their libraries know nothing but files.
    """
    model.config.dtype = str(model.dtype).removeprefix("torch.")
    model.config.architectures = [type(model).__name__]
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=scratch) as name:
        folder = Path(name)
        model.config.save_pretrained(folder)
        if model.can_generate():
            model.generation_config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
