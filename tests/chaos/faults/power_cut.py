"""What is left after a power cut: what was fsynced, and nothing else.

A file holds what it held at its last fsync, a folder the names that it had at its own: so a file
that was only written is empty, a rename whose folder was not fsynced did not happen, and a deletion
is undone. That is the strictest reading of POSIX; file systems in use are kinder now and then.
"""

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple


class Inode(NamedTuple):
    """A file or folder, whatever it is called."""

    device: int
    number: int


class Disk:
    """Records what `os.fsync` makes durable below one folder, which is there from the start."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.syncs = 0
        self._files: dict[Inode, bytes] = {}
        self._folders: dict[Inode, dict[str, tuple[Inode, bool]]] = {}
        self._held: list[int] = []
        """Open for as long as we look, so that no number of an inode is given out again."""

    def fsync(self, handle: int) -> None:
        """Note a file's bytes or a folder's names, in place of `os.fsync`."""
        self.syncs += 1
        about = os.fstat(handle)
        inode = Inode(about.st_dev, about.st_ino)
        self._held.append(os.dup(handle))
        if stat.S_ISDIR(about.st_mode):
            self._folders[inode] = dict(self._names(handle))
        else:
            self._files[inode] = Path(f"/proc/self/fd/{handle}").read_bytes()

    def _names(self, folder: int) -> Iterator[tuple[str, tuple[Inode, bool]]]:
        for name in os.listdir(folder):
            held = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=folder)
            self._held.append(held)
            about = os.fstat(held)
            yield name, (Inode(about.st_dev, about.st_ino), stat.S_ISDIR(about.st_mode))

    def after_a_cut(self, into: Path) -> Path:
        """Write what is left below `root` to a new folder; return it."""
        shutil.rmtree(into, ignore_errors=True)
        about = self.root.stat()
        self._restore(Inode(about.st_dev, about.st_ino), into)
        return into

    def _restore(self, folder: Inode, into: Path) -> None:
        into.mkdir(parents=True)
        for name, (inode, is_folder) in self._folders.get(folder, {}).items():
            if is_folder:
                self._restore(inode, into / name)
            else:
                (into / name).write_bytes(self._files.get(inode, b""))

    def close(self) -> None:
        """Let go of everything."""
        while self._held:
            os.close(self._held.pop())


@contextmanager
def watched(root: Path) -> Iterator[Disk]:
    """A disk under `root` (already there and durable) for as long as the block lasts."""
    disk = Disk(root)
    real, os.fsync = os.fsync, disk.fsync
    try:
        yield disk
    finally:
        os.fsync = real
        disk.close()
