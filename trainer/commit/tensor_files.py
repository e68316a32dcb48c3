"""Safetensors files without torch: whether their tensors are numbers, and what they hash to."""

import json
import struct
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from odradek.trainer.commit.durable_files import sha256_of

WEIGHTS: Final = "model.safetensors"
"""A model's weights in its folder, where they are one file."""
INDEX: Final = f"{WEIGHTS}.index.json"
"""The index of its shards, where they are several."""
EXPONENTS: Final = {
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
    "F32": ("<u4", 0x7F80_0000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
}
"""Bits of each kind of float, and which of them are all set in what is infinite or no number."""
PIECE: Final = 1 << 24
"""Bytes that are looked at together."""


def non_finite_tensor(path: Path) -> str:
    """The name of the first tensor that holds something infinite or no number, or "".

    Integers are not looked at, nor kinds of floats that no trainer of ours writes. Nor is a file
    that is no safetensors: loading it fails.
    """
    with path.open("rb") as file:
        tensors = _header(file, path.stat().st_size)
        begin = file.tell()
        for name, about in tensors.items():
            kind = about.get("dtype", "")
            if kind in EXPONENTS and not _finite(file, begin, about["data_offsets"], kind):
                return name
    return ""


def tensor_names(path: Path) -> list[str]:
    """Names of the tensors of a safetensors file; none of any other file."""
    with path.open("rb") as file:
        return list(_header(file, path.stat().st_size))


def digest_of(folder: Path) -> str:
    """What the weights in a folder are held against; "" where it holds none, or other shards.

    It is the sha256 of `model.safetensors`. Of several shards it is that of their index, in which
    the sha256 of each shard must be the shard's.
    """
    if (folder / WEIGHTS).is_file():
        return sha256_of(folder / WEIGHTS)
    try:
        sums = json.loads((folder / INDEX).read_bytes())["metadata"]["sha256"]
        whole = all(
            Path(name).name == name and sha256_of(folder / name) == digest
            for name, digest in sums.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""
    return sha256_of(folder / INDEX) if whole else ""


def _header(file: BinaryIO, size: int) -> dict[str, dict[str, Any]]:
    """Kind, shape and place of each tensor; the file then stands where the first one begins."""
    prefix = file.read(8)
    length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
    if length > size - 8:
        return {}
    try:
        tensors: dict[str, dict[str, Any]] = json.loads(file.read(length))
    except ValueError:
        return {}
    return {name: about for name, about in tensors.items() if name != "__metadata__"}


def all_finite(data: bytes | memoryview, kind: str) -> bool:
    """Whether floats of a kind are numbers; of any other kind nothing is known, so they are.

    Args:
        data: Whole numbers of bytes of it.
        kind: As a safetensors header names it.
    """
    if kind not in EXPONENTS:
        return True
    dtype, exponent = EXPONENTS[kind]
    bits = np.frombuffer(data, dtype=dtype)
    return not bool(((bits & bits.dtype.type(exponent)) == exponent).any())


def _finite(file: BinaryIO, begin: int, place: list[int], kind: str) -> bool:
    file.seek(begin + place[0])
    left = place[1] - place[0]
    while left > 0:
        piece = file.read(min(PIECE, left))
        if not piece:
            return True
        left -= len(piece)
        if not all_finite(piece, kind):
            return False
    return True
