"""The base model of an adapter: it is not in a run's checkpoints, so it must still be the same."""

import hashlib
import json
from pathlib import Path
from typing import Final

from odradek.trainer.adapters.shape import ADAPTER_CONFIG, AdapterShape
from odradek.trainer.commit.durable_files import sha256_of
from odradek.trainer.errors import BadSettings, BrokenCheckpoint, NoModel
from odradek.trainer.settings import TrainerSettings

BASE: Final = "base.json"
"""In a checkpoint: folder and digest of the base model."""
INCIDENTAL: Final = frozenset(
    {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"}
)
"""Fields of a model's configuration that change nothing of what it computes in the trainer."""


def digest_of(model: Path) -> str:
    """sha256 over a model folder's weights and what its configuration says of them.

    It does not depend on where the folder is. Raises NoModel.
    """
    files = sorted(model.glob("model*.safetensors")) or sorted(model.glob("*.safetensors"))
    try:
        config = json.loads((model / "config.json").read_bytes())
        whole = hashlib.sha256()
        for path in files:
            whole.update(bytes.fromhex(sha256_of(path)))
    except (OSError, ValueError) as error:
        raise NoModel(f"the model in {model} cannot be read: {error}") from error
    if not files:
        raise NoModel(f"the model in {model} has no safetensors")
    kept = {name: value for name, value in config.items() if name not in INCIDENTAL}
    whole.update(json.dumps(kept, sort_keys=True).encode())
    return whole.hexdigest()


def named(model: str, digest: str) -> bytes:
    """The file that says in a checkpoint which model its adapter belongs to."""
    return json.dumps({"model": model, "digest": digest}, sort_keys=True).encode() + b"\n"


def read(folder: Path) -> tuple[str, str]:
    """Folder and digest of the base model of a checkpoint. Raises BrokenCheckpoint."""
    try:
        stored = json.loads((folder / BASE).read_text())
        return str(stored["model"]), str(stored["digest"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokenCheckpoint(f"{folder} does not say which model its adapter is of") from error


def is_adapter(folder: Path) -> bool:
    """Whether a checkpoint holds an adapter, not a whole model."""
    return (folder / ADAPTER_CONFIG).is_file()


def begun_from(settings: TrainerSettings, checkpoint: Path | None) -> str:
    """The folder from which a start loads its model.

    Args:
        settings: Of this start.
        checkpoint: The one that it goes on from; None for a new run.

    Raises BadSettings where the checkpoint holds another kind of weights than the settings train,
    an adapter of another shape, or one of another base model.
    """
    if checkpoint is None:
        return settings.model
    rank = settings.lora_rank
    if is_adapter(checkpoint) != (rank > 0):
        what = "all weights of a model" if rank else "a LoRA adapter"
        remedy = "lora_rank = 0" if rank else f"lora_rank = {_shape_of(checkpoint).rank}"
        raise BadSettings(
            f"{checkpoint} holds {what}, and lora_rank is {rank}: set {remedy}, or choose another "
            "output_dir and run"
        )
    if not rank:
        return str(checkpoint)
    _require_shape(settings, _shape_of(checkpoint), checkpoint)
    stored_model, stored_digest = read(checkpoint)
    if digest_of(Path(settings.model)) != stored_digest:
        raise BadSettings(
            f"the adapter in {checkpoint} belongs to the model that was in {stored_model}, and "
            f"model = {settings.model} has other weights or another configuration: give the model "
            "that the run began with"
        )
    return settings.model


def _shape_of(checkpoint: Path) -> AdapterShape:
    path = checkpoint / ADAPTER_CONFIG
    return AdapterShape.of_config(path.read_bytes(), str(path))


def _require_shape(settings: TrainerSettings, stored: AdapterShape, checkpoint: Path) -> None:
    """Raise BadSettings where the same matrices would mean something else."""
    held = {
        "lora_rank": (stored.rank, settings.lora_rank),
        "lora_alpha": (stored.alpha, settings.lora_alpha),
        "lora_rslora": (stored.rslora, settings.lora_rslora),
    }
    for name, (before, now) in held.items():
        if before != now:
            raise BadSettings(
                f"{name} is {now}, and the adapter in {checkpoint} was trained with {before}: set "
                f"{name} = {before}, or choose another output_dir and run"
            )
