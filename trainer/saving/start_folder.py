"""Whether a folder is a model that a run can start from: refused in one line before it is loaded.

Libraries load more than they should: pickles, and models of which a part is missing, which they
fill with random numbers. What they do not need they leave out without a word.
"""

import json
import logging
from pathlib import Path
from typing import Any, Final

from odradek.trainer.commit import checkpoint
from odradek.trainer.commit.tensor_files import INDEX, WEIGHTS, tensor_names
from odradek.trainer.errors import NoModel, UnsuitedModel
from odradek.trainer.saving.model_files import model_tensors

log = logging.getLogger("odradek")

CONFIG: Final = "config.json"
ADAPTER: Final = "adapter_config.json"
PICKLES: Final = ("*.bin", "*.pt", "*.pth", "*.ckpt")
OTHERS: Final = ("*.gguf", "*.h5", "*.msgpack")


def check_folder(path: Path | str, *, verified: bool = False) -> None:
    """Look at a folder's files.

    Args:
        path: The folder.
        verified: Whether a checkpoint was held against its manifest already.

    Raises:
        NoModel: It is no folder of transformers, or its weights are not whole.
        UnsuitedModel: It is one, and its weights are not of a kind that is trained.
        BrokenCheckpoint: It is a checkpoint of a run, and differs from its manifest.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise NoModel(
            f"{folder} is no model folder: it is not there. Fetch a model of huggingface.co first: "
            f"hf download ORGANISATION/MODEL --local-dir {folder}"
        )
    if not (folder / CONFIG).is_file():
        adapter = "; it is a LoRA adapter, which `odradek export model` puts into its model"
        more = adapter if (folder / ADAPTER).is_file() else ""
        raise NoModel(f"{folder} is no model folder: it has no {CONFIG}{more}")
    ours = all((folder / name).is_file() for name in (checkpoint.MANIFEST, checkpoint.POSITION))
    if ours and not verified:
        checkpoint.verify(folder)
    _check_kind(folder)
    for file in _weight_files(folder):
        if not (folder / file).is_file():
            raise NoModel(f"the model in {folder} is not whole: {file} is missing; fetch it again")


def _check_kind(folder: Path) -> None:
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError) as error:
        raise NoModel(f"{folder / CONFIG} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise NoModel(f"{folder / CONFIG} is no configuration of a model")
    if kind := (config.get("quantization_config") or {}).get("quant_method", ""):
        raise UnsuitedModel(
            f"the model in {folder} cannot be trained: its weights are quantized ({kind}); take "
            "the model that it was made of"
        )
    if (folder / WEIGHTS).is_file() or (folder / INDEX).is_file():
        return
    for patterns, what in ((PICKLES, "pickles"), (OTHERS, "of another format")):
        if found := sorted(path.name for pattern in patterns for path in folder.glob(pattern)):
            raise UnsuitedModel(
                f"the weights in {folder} are {what} ({found[0]}), and only safetensors are taken: "
                "load them with transformers elsewhere, and save them with save_pretrained()"
            )
    raise NoModel(f"{folder} has no weights: {WEIGHTS} or {INDEX} is missing")


def _weight_files(folder: Path) -> list[str]:
    """Names of the files that hold the weights. Raises NoModel for an index that says nothing."""
    if not (folder / INDEX).is_file():
        return [WEIGHTS]
    try:
        return sorted(set(json.loads((folder / INDEX).read_bytes())["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NoModel(f"{folder / INDEX} cannot be read: {error}") from error


def check_loaded(model: Any, path: Path | str) -> None:
    """Look at what was made of a folder's files.

    Args:
        model: Of transformers, loaded from there.
        path: The folder.

    Raises UnsuitedModel where a weight was not there, so that it is random now. What is left over
    is a line of the log.
    """
    folder, prefix = Path(path), f"{model.base_model_prefix}."
    # Files of a model without its head lack the prefix, and transformers takes them all the same.
    stored = {
        name.removeprefix(prefix)
        for file in _weight_files(folder)
        for name in tensor_names(folder / file)
    }
    wanted = {name.removeprefix(prefix) for name in model_tensors(model, model.state_dict())}
    other = {name.removeprefix(prefix) for name, _ in model.named_buffers()}
    other |= {name.removeprefix(prefix) for name in model.all_tied_weights_keys}
    if missing := sorted(wanted - stored - other):
        raise UnsuitedModel(
            f"the model in {folder} cannot be trained: {len(missing)} of its weights are not in "
            f"its files ({missing[0]}), and would be random; fetch it again"
        )
    if left := sorted(stored - wanted - other):
        log.info("%d tensors of %s are not used (%s)", len(left), folder, left[0])
