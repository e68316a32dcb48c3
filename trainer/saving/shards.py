"""Tensors as safetensors files of a bounded size, whose bytes are made piece by piece.

The library writes a file in one go, so it could only be hashed by reading it back. Here each piece
is hashed as it is written, and only one tensor at a time is copied from a GPU. The format: eight
bytes of a length, a JSON header, and the tensors one after the other
(github.com/huggingface/safetensors, "Format"). The bytes are those that the library writes.
"""

import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch

from odradek.trainer.commit.checkpoint import Mapped
from odradek.trainer.commit.durable_files import Buffer, FileSum, write_summed
from odradek.trainer.commit.tensor_files import PIECE, all_finite
from odradek.trainer.errors import NonFiniteWeights

SHARD_BYTES: Final = 4_000_000_000
"""Most bytes of the tensors of a file; a larger tensor has a file of its own."""
WRITERS: Final = 4
"""Shards that are written at once."""
MODEL: Final = "model"
"""How the names of a model's files begin."""
KINDS: Final = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
}
"""The format's names. In a file, tensors of a kind further down stand before the others."""
ORDER: Final = {kind: place for place, kind in enumerate(KINDS)}
TORCH: Final = {"format": "pt"}
"""What transformers wants to find in a file's metadata."""
INDEX: Final = ".safetensors.index.json"
"""How the name of an index ends."""
ALIGNED: Final = 8
"""The tensors' bytes begin at a multiple of it."""

Tensors = Mapping[str, torch.Tensor]


def split(sizes: Mapping[str, int], most: int) -> list[list[str]]:
    """Deal names out to shards, in their order.

    Args:
        sizes: Bytes of each.
        most: Bytes of a shard; only one that holds a single name may be larger.
    """
    shards: list[list[str]] = []
    filled = 0
    for name, size in sizes.items():
        if not shards or filled + size > most:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards or [[]]


def shard_names(prefix: str, number: int) -> list[str]:
    """File names of so many shards, as transformers has them."""
    if number == 1:
        return [f"{prefix}.safetensors"]
    return [f"{prefix}-{at:05d}-of-{number:05d}.safetensors" for at in range(1, number + 1)]


def sharded(
    prefix: str,
    tensors: Tensors,
    *,
    dtype: torch.dtype | None = None,
    most: int = 0,
) -> dict[str, Tensors]:
    """Tensors by the file that they go to.

    Args:
        prefix: How the files' names begin.
        tensors: On any device.
        dtype: What floats become as they are written; see `pieces`.
        most: Bytes of a file's tensors; 0 for SHARD_BYTES.
    """
    sizes = {name: _size(tensor, dtype) for name, tensor in tensors.items()}
    shards = split(sizes, most or SHARD_BYTES)
    files = shard_names(prefix, len(shards))
    return {
        file: {name: tensors[name] for name in names}
        for file, names in zip(files, shards, strict=True)
    }


def pieces(
    tensors: Tensors,
    *,
    dtype: torch.dtype | None = None,
    metadata: Mapping[str, str] = TORCH,
) -> Iterator[Buffer]:
    """The bytes of a file of these tensors, each copied to the CPU when its turn comes.

    Args:
        tensors: On any device.
        dtype: What floats are rounded to; None leaves all as they are.
        metadata: Of the file, beside the usual.

    Raises NonFiniteWeights, with its name, where a tensor holds something infinite or NaN as it is
    written.
    """
    names = sorted(tensors, key=lambda name: (-ORDER[_kind(tensors[name], dtype)], name))
    header: dict[str, Any] = {"__metadata__": {**TORCH, **metadata}}
    end = 0
    for name in names:
        begin, end = end, end + _size(tensors[name], dtype)
        header[name] = {
            "dtype": KINDS[_kind(tensors[name], dtype)],
            "shape": list(tensors[name].shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNED)
    yield struct.pack("<Q", len(text)) + text
    for name in names:
        tensor = tensors[name].detach().to(_kind(tensors[name], dtype)).cpu().contiguous()
        data = tensor.reshape(-1).view(torch.uint8).numpy().data
        for at in range(0, len(data), PIECE):
            piece = data[at : at + PIECE]
            if not all_finite(piece, KINDS[tensor.dtype]):
                raise NonFiniteWeights(f"{name!r} holds something infinite or no number")
            yield piece


def index(
    shards: Mapping[str, Tensors],
    *,
    dtype: torch.dtype | None = None,
    sums: Mapping[str, FileSum] | None = None,
) -> bytes:
    """The index of a model's shards, as transformers reads it.

    Args:
        shards: Tensors by file.
        dtype: See `pieces`.
        sums: Of the files; their sha256 goes into the index.
    """
    sizes = [_size(tensor, dtype) for part in shards.values() for tensor in part.values()]
    metadata: dict[str, Any] = {"total_size": sum(sizes)}
    if sums is not None:
        metadata["sha256"] = {file: sums[file].sha256 for file in shards}
    places = {name: file for file, tensors in shards.items() for name in tensors}
    return json.dumps({"metadata": metadata, "weight_map": places}, sort_keys=True).encode()


def files_of(
    prefix: str,
    tensors: Tensors,
    *,
    metadata: Mapping[str, str] = TORCH,
    most: int = 0,
) -> dict[str, Iterable[Buffer]]:
    """The files of some tensors, by name; of several shards, their index among them."""
    shards = sharded(prefix, tensors, most=most)
    files: dict[str, Iterable[Buffer]] = {
        name: pieces(part, metadata=metadata) for name, part in shards.items()
    }
    if len(shards) > 1:
        files[f"{prefix}{INDEX}"] = [index(shards)]
    return files


def write_tensors(
    folder: Path,
    prefix: str,
    tensors: Tensors,
    *,
    dtype: torch.dtype | None = None,
    most: int = 0,
    mapped: Mapped = map,
) -> str:
    """Write tensors durably into a folder; returns what they can be held against.

    That is the sha256 of their file. Of several shards it is that of their index, which holds the
    sha256 of each.

    Args:
        folder: Where to.
        prefix: How the files' names begin.
        tensors: On any device.
        dtype: See `pieces`.
        most: See `sharded`.
        mapped: Writes the shards, several of them at once perhaps.
    """
    shards = sharded(prefix, tensors, dtype=dtype, most=most)
    names = list(shards)
    written = mapped(
        lambda name: write_summed(folder / name, pieces(shards[name], dtype=dtype)), names
    )
    sums = dict(zip(names, written, strict=True))
    if len(names) == 1:
        return sums[names[0]].sha256
    return write_summed(folder / f"{prefix}{INDEX}", [index(shards, dtype=dtype, sums=sums)]).sha256


def _kind(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.dtype:
    return dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype


def _size(tensor: torch.Tensor, dtype: torch.dtype | None) -> int:
    return tensor.numel() * _kind(tensor, dtype).itemsize
