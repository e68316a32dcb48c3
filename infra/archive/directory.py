"""Objects in a folder: written beside their names, made durable, then renamed."""

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from odradek.infra.errors import ArchiveRefused
from odradek.infra.runtime.crash_points import crash_point

PART: Final = ".part"
OLD_S: Final = 3600.0
"""After which a file that has no name yet is of a writer that died."""


class DirectoryStore:
    """Implements `ObjectStore` in a folder, which is made when the first object is written."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def sizes(self) -> dict[str, int]:
        """See `ObjectStore`."""
        with _in_words(self._root):
            return {
                path.relative_to(self._root).as_posix(): path.stat().st_size
                for path in sorted(self._root.rglob("*"))
                if path.is_file() and path.suffix != PART
            }

    def read(self, path: str) -> bytes:
        """See `ObjectStore`."""
        with _in_words(self._root / path):
            return (self._root / path).read_bytes()

    def write(self, path: str, data: bytes) -> None:
        """See `ObjectStore`.

        Two writers may write one object at once: each has a file of its own until it renames it.
        """
        target = self._root / path
        part = target.with_name(f".{target.name}.{secrets.token_hex(4)}{PART}")
        with _in_words(target):
            _make(target.parent)
            try:
                with part.open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                # Dead above this line, the object has no name, and the next writer makes it anew.
                # Below it, the object is there and whole, also after a power cut.
                crash_point("object_before_rename")
                part.replace(target)
                _settle(target.parent)
            finally:
                part.unlink(missing_ok=True)

    def sweep(self) -> int:
        """See `ObjectStore`."""
        swept = 0
        with _in_words(self._root):
            for path in self._root.rglob(f".*{PART}"):
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - path.stat().st_mtime > OLD_S:
                        path.unlink()
                        swept += 1
        return swept


@contextlib.contextmanager
def _in_words(path: Path) -> Iterator[None]:
    """Say in one line what the file system says no to. Raises ArchiveRefused."""
    try:
        yield
    except OSError as error:
        raise ArchiveRefused(
            f"{error.filename or path}: {error.strerror or error}; the archive's folder must be "
            "there to read, and have room to write"
        ) from error


def _make(folder: Path) -> None:
    """Make a folder, and each above it, durable."""
    if folder.is_dir():
        return
    _make(folder.parent)
    folder.mkdir(exist_ok=True)
    _settle(folder.parent)


def _settle(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
