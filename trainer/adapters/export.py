"""A checkpoint becomes a whole Hugging Face folder, which transformers, vLLM and others load.

An adapter is merged into the model that it was trained on: W + s B A, taken in float64. What holds
all weights is written as it is.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from msgspec import Struct

from odradek.trainer.adapters import base, files
from odradek.trainer.adapters.shape import AdapterShape
from odradek.trainer.commit import checkpoint, durable_files
from odradek.trainer.errors import BadAdapter, BadSettings
from odradek.trainer.models import load_model, load_tokenizer
from odradek.trainer.saving.model_card import README, facts_of, model_card
from odradek.trainer.saving.shards import SHARD_BYTES

Dtype = Literal["float32", "bfloat16"]


class ExportedModel(Struct, frozen=True):
    """What was written, for whoever tells people about it.

    Attributes:
        folder: Where it is.
        run: Of the checkpoint.
        step: Of the checkpoint.
        begun_from: Folder of the model that the run began with, as its settings named it.
        adapter: What was merged; None where all weights were trained.
        parameters: Numbers that the model has.
        dtype: Of its weights.
    """

    folder: Path
    run: str
    step: int
    begun_from: str
    adapter: AdapterShape | None
    parameters: int
    dtype: Dtype


def export_model(
    saved: Path,
    out: Path,
    *,
    model: Path | None = None,
    dtype: Dtype = "float32",
    base_model: str = "",
    command: Sequence[str] = (),
) -> ExportedModel:
    """Write a checkpoint's model with its card, whole or not at all.

    Args:
        saved: The checkpoint's folder.
        out: Where to write; not there yet, or empty.
        model: Where the base model of an adapter is now; None: where it was in training.
        dtype: Of the written weights.
        base_model: Id on huggingface.co of the model that the run began with, for the card.
        command: For the card.

    Raises:
        BrokenCheckpoint: The checkpoint differs from its manifest.
        BadSettings: `out` is not empty, or the base model is another one.
        NoModel, NoTokenizer, BadAdapter: What belongs to it cannot be read.
        NoRoom: The disk is full or may not be written to.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadSettings(f"{out} is there already: name a folder that is not, or an empty one")
    digest = checkpoint.verify(saved)
    place = checkpoint.position_of(saved)
    shape = None
    if base.is_adapter(saved):
        source = _base_of(saved, model)
        whole = load_model(source)
        shape = merge(whole, saved)
    else:
        source, whole = saved, load_model(saved)
    whole = whole.to(getattr(torch, dtype))
    partial = out.parent / f".partial-{out.name}"
    with durable_files.room(out):
        durable_files.make_durably(out.parent)
        shutil.rmtree(partial, ignore_errors=True)
        whole.save_pretrained(partial, max_shard_size=SHARD_BYTES)
        load_tokenizer(source).save_pretrained(partial)
        facts = facts_of(
            place, out.absolute().name, digest=digest, hub_base=base_model, command=command
        )
        (partial / README).write_text(model_card(facts))
        for path in (*partial.iterdir(), partial):
            durable_files.fsync(path)
        if out.exists():
            out.rmdir()
        partial.rename(out)
        durable_files.fsync(out.parent)
    return ExportedModel(
        folder=out,
        run=str(place["run"]),
        step=int(place["step"]),
        begun_from=str(place.get("model", "")),
        adapter=shape,
        parameters=sum(parameter.numel() for parameter in whole.parameters()),
        dtype=dtype,
    )


@torch.no_grad()
def merge(model: Any, folder: Path) -> AdapterShape:
    """Add an adapter to the weights of the model that it was trained on.

    Raises BadAdapter where it is of another model.
    """
    shape, tensors = files.read(folder)
    for module, (into, out) in files.pairs(tensors).items():
        layer = dict(model.named_modules()).get(module)
        weight = getattr(layer, "weight", None)
        if weight is None or weight.shape != (out.shape[0], into.shape[1]):
            raise BadAdapter(f"the adapter in {folder} is of another model ({module})")
        # Rounded once: in float32 the product's own rounding would be added to it.
        weight.copy_(weight.double() + shape.scale * (out.double() @ into.double()))
    return shape


def _base_of(saved: Path, model: Path | None) -> Path:
    """The folder of an adapter's base model. Raises BadSettings where it is another model."""
    named, digest = base.read(saved)
    folder = Path(named) if model is None else model
    if not (folder / "config.json").is_file():
        raise BadSettings(
            f"the adapter in {saved} belongs to the model of {named}, and {folder} holds no model: "
            "give --model with the folder where it is now"
        )
    if base.digest_of(folder) != digest:
        raise BadSettings(
            f"the adapter in {saved} belongs to the model that was in {named}, and {folder} has "
            "other weights or another configuration: give --model with the one of the training"
        )
    return folder
