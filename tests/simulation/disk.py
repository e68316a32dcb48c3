"""A disk in memory on which a crash of the machine loses what nobody synced.

Files have contents that are in memory and contents that are safe; folders likewise have entries.
`fsync` of a file makes its contents safe, `fsync` of a folder its entries. A crash keeps, of what
was not synced, a random part: an entry without its contents is an empty file.
"""

import io
from pathlib import PurePosixPath
from random import Random
from typing import Any, NamedTuple, Self


class File:
    """Contents, and what of them would survive."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data
        self.safe = b""


class Folder:
    """Entries, and those that would survive."""

    def __init__(self) -> None:
        self.entries: dict[str, File | Folder] = {}
        self.safe: dict[str, File | Folder] = {}


class Stat(NamedTuple):
    """What of `os.stat_result` is looked at."""

    st_size: int
    st_mode: int
    st_uid: int = 0


class Disk:
    """One file system."""

    def __init__(self, rng: Random) -> None:
        self.top = Folder()
        self._rng = rng

    def path(self, name: str) -> "SimPath":
        """A path on this disk."""
        return SimPath(self, PurePosixPath("/") / name)

    def find(self, pure: PurePosixPath) -> "File | Folder | None":
        """What stands at a path."""
        at: File | Folder | None = self.top
        for part in pure.parts[1:]:
            at = at.entries.get(part) if isinstance(at, Folder) else None
        return at

    def fsync(self, path: "SimPath") -> None:
        """Make a file's contents, or a folder's entries, durable."""
        found = self.find(path.pure)
        if isinstance(found, File):
            found.safe = found.data
        elif isinstance(found, Folder):
            found.safe = dict(found.entries)

    def crash(self) -> None:
        """The machine loses power."""
        self._crash(self.top)

    def _crash(self, folder: Folder) -> None:
        kept = dict(folder.safe)
        for name in sorted(folder.entries.keys() | folder.safe.keys()):
            now, before = folder.entries.get(name), folder.safe.get(name)
            if now is not before and self._rng.random() < 0.5:
                kept.pop(name, None)
                if now is not None:
                    kept[name] = now
        folder.entries = kept
        folder.safe = dict(kept)
        for entry in kept.values():
            if isinstance(entry, Folder):
                self._crash(entry)
            elif entry.data != entry.safe:
                cut = self._rng.choice((0, 0, len(entry.data) // 2, len(entry.data)))
                entry.data = entry.safe = entry.safe or entry.data[:cut]


class Writing:
    """A file that is open to be written: what was written is there at once."""

    def __init__(self, file: File) -> None:
        self._file = file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""

    def write(self, data: bytes | memoryview) -> None:
        self._file.data += bytes(data)


class SimPath:
    """The part of `pathlib.Path` that checkpoints use."""

    def __init__(self, disk: Disk, pure: PurePosixPath) -> None:
        self.disk = disk
        self.pure = pure
        self.name = pure.name

    def __truediv__(self, name: str) -> "SimPath":
        return SimPath(self.disk, self.pure / name)

    def __lt__(self, other: "SimPath") -> bool:
        return self.pure < other.pure

    def __repr__(self) -> str:
        return str(self.pure)

    @property
    def parent(self) -> "SimPath":
        return SimPath(self.disk, self.pure.parent)

    @property
    def _found(self) -> Any:
        return self.disk.find(self.pure)

    @property
    def _folder(self) -> Folder:
        found = self.disk.find(self.pure.parent)
        if not isinstance(found, Folder):
            raise FileNotFoundError(str(self.pure.parent))
        return found

    def exists(self) -> bool:
        return self._found is not None

    def is_dir(self) -> bool:
        return isinstance(self._found, Folder)

    def is_file(self) -> bool:
        return isinstance(self._found, File)

    def is_symlink(self) -> bool:
        return False

    def mkdir(self, mode: int = 0o777, *, parents: bool = False, exist_ok: bool = False) -> None:
        if self.exists():
            if exist_ok:
                return
            raise FileExistsError(str(self.pure))
        if parents and not self.parent.exists():
            self.parent.mkdir(parents=True, exist_ok=True)
        self._folder.entries[self.name] = Folder()

    def write_bytes(self, data: bytes) -> None:
        found = self._folder.entries.get(self.name)
        if isinstance(found, File):
            found.data = data
        else:
            self._folder.entries[self.name] = File(data)

    def write_text(self, text: str) -> None:
        self.write_bytes(text.encode())

    def read_bytes(self) -> bytes:
        found = self._found
        if not isinstance(found, File):
            raise FileNotFoundError(str(self.pure))
        return found.data

    def read_text(self) -> str:
        return self.read_bytes().decode()

    def open(self, mode: str) -> "io.BytesIO | Writing":
        if "w" not in mode:
            return io.BytesIO(self.read_bytes())
        self.write_bytes(b"")
        return Writing(self._found)

    def stat(self) -> Stat:
        found = self._found
        if found is None:
            raise FileNotFoundError(str(self.pure))
        if isinstance(found, Folder):
            return Stat(0, 0o040755)
        return Stat(len(found.data), 0o100644)

    def iterdir(self) -> list["SimPath"]:
        found = self._found
        if not isinstance(found, Folder):
            raise NotADirectoryError(str(self.pure))
        return [self / name for name in list(found.entries)]

    def rglob(self, _pattern: str) -> list["SimPath"]:
        found: list[SimPath] = []
        for one in self.iterdir():
            found.append(one)
            if one.is_dir():
                found += one.rglob(_pattern)
        return found

    def glob(self, pattern: str) -> list["SimPath"]:
        return [one for one in self.iterdir() if one.pure.match(pattern)]

    def relative_to(self, other: "SimPath") -> PurePosixPath:
        return self.pure.relative_to(other.pure)

    def rename(self, target: "SimPath") -> None:
        entry = self._folder.entries.pop(self.name)
        target._folder.entries[target.name] = entry

    def unlink(self) -> None:
        del self._folder.entries[self.name]


def rmtree(path: SimPath, ignore_errors: bool = False) -> None:
    """`shutil.rmtree`."""
    if path.exists():
        path.unlink()
    elif not ignore_errors:
        raise FileNotFoundError(str(path))
