"""Files and folders that outlive a power cut, and what a full disk says."""

import contextlib
import errno
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from odradek.trainer.errors import NoRoom

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES})
_OS_ERROR: Final = re.compile(r"\(os error (\d+)\)")

Buffer = bytes | memoryview
"""Bytes that can be written."""


class FileSum(NamedTuple):
    """What a manifest says of a file."""

    bytes: int
    sha256: str


def write_summed(path: Path, pieces: Iterable[Buffer]) -> FileSum:
    """Write a file durably, and hash it on the way: it is not read back."""
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)
            digest.update(piece)
            size += len(piece)
    fsync(path)
    return FileSum(size, digest.hexdigest())


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync(path: Path) -> None:
    """Make a file or a folder durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def room(path: Path) -> Iterator[None]:
    """Tell a full or read-only disk in one line. Raises NoRoom."""
    try:
        yield
    except Exception as error:
        # safetensors and tokenizers write from Rust: only their message names a full disk, and
        # tokenizers raise a bare Exception. An error that is not of the disk is raised as it came.
        match = _OS_ERROR.search(str(error))
        number = error.errno if isinstance(error, OSError) else int(match[1]) if match else None
        if number not in _NO_ROOM:
            raise
        raise NoRoom(
            f"{path} cannot be written: {os.strerror(number)}; once it can be, start the trainer "
            "again: it goes on from the last whole checkpoint"
        ) from error


def make_durably(folder: Path) -> None:
    """Make a folder and those above it; what we make is there after a power cut.

    A folder that is there already may be just as new: its own name is made durable, too.
    """
    if not folder.is_dir():
        make_durably(folder.parent)
        folder.mkdir(mode=0o755, exist_ok=True)
    with contextlib.suppress(PermissionError):  # a parent that we cannot read is not ours
        fsync(folder.parent)
