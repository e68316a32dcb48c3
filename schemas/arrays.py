"""Token arrays on the wire: base64 of little-endian numbers.

msgspec writes `bytes` as base64 in JSON, so an array is a `bytes` field here: readable from any
language and four times cheaper than a list of JSON numbers. These functions are the only way in
and out of them.
"""

import math
import struct
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from odradek.schemas.errors import InvalidRecord

ID_BYTES: Final = 4
"""Bytes of a token id."""
SHORT: Final = 64

type_ids = np.dtype("<u4")
type_floats = np.dtype("<f4")

Ids = npt.NDArray[np.uint32]
Floats = npt.NDArray[np.float32]


def pack_ids(ids: Sequence[int] | npt.NDArray[np.integer]) -> bytes:
    """Token ids as bytes. Raises InvalidRecord for a negative id or one beyond 32 bits."""
    array = np.asarray(ids)
    if array.size == 0:
        return b""
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise InvalidRecord("bad_array", "token ids must be one row of whole numbers")
    if array.min() < 0 or array.max() > 0xFFFFFFFF:
        raise InvalidRecord("bad_array", "a token id is negative or beyond 32 bits")
    return array.astype(type_ids).tobytes()


def unpack_ids(data: bytes) -> Ids:
    """Bytes as token ids, shape (n,), uint32. The array shares the bytes and is read-only."""
    if len(data) % ID_BYTES:
        raise InvalidRecord("bad_array", f"{len(data)} bytes are no whole number of token ids")
    return np.frombuffer(data, dtype=type_ids)


def pack_floats(values: Sequence[float] | npt.NDArray[np.floating]) -> bytes:
    """Log probabilities (nats) as bytes. Raises InvalidRecord if one is not finite."""
    array = np.asarray(values, dtype=type_floats)
    if array.size and not np.isfinite(array).all():
        raise InvalidRecord("bad_array", "a log probability is not finite")
    return array.tobytes()


def unpack_floats(data: bytes) -> Floats:
    """Bytes as float32, shape (n,). Raises InvalidRecord if one is not finite."""
    if len(data) % 4:
        raise InvalidRecord("bad_array", f"{len(data)} bytes are no whole number of floats")
    array = np.frombuffer(data, dtype=type_floats)
    if array.size and not np.isfinite(array).all():
        raise InvalidRecord("bad_array", "a log probability is not finite")
    return array


def check_ids(data: bytes) -> int:
    """How many token ids an array holds. Raises InvalidRecord where it is no whole number."""
    n, rest = divmod(len(data), ID_BYTES)
    if rest:
        raise InvalidRecord("bad_array", f"{len(data)} bytes are no whole number of token ids")
    return n


def check_floats(data: bytes) -> int:
    """How many finite floats an array holds. Raises InvalidRecord if one is not finite.

    Of a short array the sum is looked at: it is finite exactly if all are (doubles cannot
    overflow by adding a few floats), and numpy would take longer to begin.
    """
    n, rest = divmod(len(data), 4)
    if rest or n > SHORT:
        return len(unpack_floats(data))
    if not math.isfinite(sum(struct.unpack(f"<{n}f", data))):
        raise InvalidRecord("bad_array", "a log probability is not finite")
    return n


def count(data: bytes) -> int:
    """How many elements an array holds."""
    return len(data) // 4


def common_prefix(left: bytes, right: bytes) -> int:
    """Length of the common prefix of two arrays of token ids, in ids."""
    if left[:ID_BYTES] != right[:ID_BYTES]:
        return 0  # another conversation, as a rule
    if right.startswith(left):
        return len(left) // ID_BYTES
    n = min(len(left), len(right)) // ID_BYTES
    differ = np.frombuffer(left, type_ids, n) != np.frombuffer(right, type_ids, n)
    return int(differ.argmax()) if differ.any() else n
