"""Whether the tensors of a safetensors file are numbers: read in pieces, without torch."""

import json
import struct
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

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
            kind = EXPONENTS.get(about.get("dtype", ""))
            if kind is not None and not _finite(file, begin, about["data_offsets"], *kind):
                return name
    return ""


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


def _finite(file: BinaryIO, begin: int, place: list[int], kind: str, exponent: int) -> bool:
    file.seek(begin + place[0])
    left = place[1] - place[0]
    while left > 0:
        piece = file.read(min(PIECE, left))
        if not piece:
            return True
        left -= len(piece)
        bits = np.frombuffer(piece, dtype=kind)
        if bool(((bits & bits.dtype.type(exponent)) == exponent).any()):
            return False
    return True
