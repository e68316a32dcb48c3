"""Checkpoints that are either whole or not there.

A checkpoint is a folder `checkpoint-<step>` whose `manifest.json` names every file with its size
and sha256. It is written under a temporary name: files, fsync, manifest last, fsync, rename, fsync
of the parent. Files are hashed as they are written. Whoever dies on the way leaves a folder that no
reader looks at.
"""

import json
import re
import shutil
import stat
from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from odradek.infra.runtime.crash_points import crash_point
from odradek.trainer.commit import durable_files
from odradek.trainer.commit.durable_files import Buffer, FileSum
from odradek.trainer.commit.tensor_files import non_finite_tensor
from odradek.trainer.errors import BrokenCheckpoint, NonFiniteWeights

MANIFEST: Final = "manifest.json"
POSITION: Final = "position.json"
NAME: Final = re.compile(r"checkpoint-(\d+)")


Files = Mapping[str, Iterable[Buffer]]
"""What a checkpoint holds: the bytes of each file by its name, which may have folders in it. They
are asked for once."""
Steps = Generator[str, None, str]
"""Work that stops at each crash point, and says its name; what it comes to is a sha256."""
Mapped = Callable[[Callable[[str], FileSum], list[str]], Iterable[FileSum]]
"""`map`, or one of several threads."""


def writing(
    root: Path,
    step: int,
    files: Files,
    *,
    keep: int,
    position: dict[str, Any],
    mapped: Mapped = map,
) -> Steps:
    """Write `checkpoint-<step>` under `root` and rotate; comes to the sha256 of its manifest.

    Args:
        root: Folder of all checkpoints of a run; made if it is not there.
        step: Optimizer steps done.
        files: Hashed as they are written.
        keep: How many whole checkpoints stay.
        position: Where the run stands, stored inside as JSON.
        mapped: Writes the files, several of them at once perhaps.

    Raises:
        NoRoom: The disk is full or may not be written to. Nothing half-written counts.
        NonFiniteWeights: A tensor holds something infinite or no number. Nothing is rotated.
    """
    final = root / f"checkpoint-{step}"
    contents = {**files, POSITION: [json.dumps(position, sort_keys=True).encode() + b"\n"]}
    with durable_files.room(root):
        durable_files.make_durably(root)
        partial = root / f".partial-{step}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o755)

        def write_file(name: str) -> FileSum:
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                return durable_files.write_summed(partial / name, contents[name])
            except NonFiniteWeights as error:
                raise NonFiniteWeights(
                    f"step {step} is not saved: in {name} {error}; the checkpoints of before are "
                    "left alone"
                ) from error

        names = sorted(contents)
        sums = {}
        for name, written in zip(names, mapped(write_file, names), strict=True):
            sums[name] = written._asdict()
            yield "between_files"
        for path in (p for p in partial.rglob("*") if p.is_dir()):
            durable_files.fsync(path)
        yield "files_before_manifest"
        # The manifest is last: files without one are no checkpoint, so if we die above this line,
        # only this step is lost. It is durable before the rename, so a folder under the final name
        # has it.
        manifest = json.dumps({"step": step, "files": sums}, sort_keys=True).encode() + b"\n"
        digest = durable_files.write_summed(partial / MANIFEST, [manifest]).sha256
        durable_files.fsync(partial)
        if final.exists():  # the same step once more, after a crash behind the rename
            shutil.rmtree(final)
        yield "manifest_before_rename"
        partial.rename(final)
        yield "renamed_before_durable"
        durable_files.fsync(root)
    yield "renamed_before_rotate"
    # Only now may older ones go: if we die above this line, all are left. Below it, one too many.
    # Later steps are of a line that was cut off, and could not be loaded: they count for none.
    for folder in [folder for number, folder in whole(root) if number <= step][keep:]:
        shutil.rmtree(folder, ignore_errors=True)
    for leftover in root.glob(".partial-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    return digest


def write(
    root: Path,
    step: int,
    files: Files,
    *,
    keep: int,
    position: dict[str, Any],
    mapped: Mapped = map,
    at: Callable[[str], None] = crash_point,
) -> str:
    """Write a checkpoint in one go, as `writing` has it, with `at` called at each crash point."""
    steps = writing(root, step, files, keep=keep, position=position, mapped=mapped)
    while True:
        try:
            point = next(steps)
        except StopIteration as end:
            digest: str = end.value
            return digest
        at(point)


def _non_finite(folder: Path) -> str:
    """Which tensor of a checkpoint holds something infinite or no number, in words, or ""."""
    for path in sorted(folder.rglob("*.safetensors")):
        if name := non_finite_tensor(path):
            return f"{name!r} in {path.name} holds something infinite or no number"
    return ""


def whole(root: Path) -> list[tuple[int, Path]]:
    """(step, folder) of each folder that is named as a checkpoint, newest first."""
    if not root.is_dir():
        return []
    checkpoints = [
        (int(match[1]), path)
        for path in root.iterdir()
        if path.is_dir() and (match := NAME.fullmatch(path.name))
    ]
    return sorted(checkpoints, reverse=True)


def verify(folder: Path) -> str:
    """Hold a checkpoint against its manifest; return the manifest's sha256.

    Raises BrokenCheckpoint, naming the first file that differs.
    """
    manifest = folder / MANIFEST
    try:
        files = json.loads(manifest.read_text())["files"]
    except (OSError, ValueError, KeyError) as error:
        raise BrokenCheckpoint(f"{folder} has no readable manifest") from error
    held = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    if unnamed := sorted(held - files.keys() - {MANIFEST}):
        # Libraries that resume from a folder load what they find there, and some of it by pickle.
        raise BrokenCheckpoint(f"{folder / unnamed[0]} is not named by the manifest")
    for name, about in files.items():
        path = folder / name
        if name not in held or path.is_symlink():
            raise BrokenCheckpoint(f"{folder}: its manifest names {name!r}, which is no file of it")
        if not path.is_file() or path.stat().st_size != about["bytes"]:
            raise BrokenCheckpoint(f"{path} is missing or has another size than the manifest says")
        if durable_files.sha256_of(path) != about["sha256"]:
            raise BrokenCheckpoint(f"{path} differs from its manifest")
    return durable_files.sha256_of(manifest)


def _refuse_shared(*folders: Path) -> None:
    """Raise BrokenCheckpoint for a folder that everybody on this machine may write to.

    Manifest and files could both be changed there, so a sum that is right would prove nothing.
    """
    for folder in folders:
        if folder.stat().st_mode & stat.S_IWOTH:
            raise BrokenCheckpoint(f"everybody may write to {folder}: chmod o-w, then look into it")


def _refuse_non_finite(folder: Path) -> None:
    """Raise BrokenCheckpoint where weights or moments are infinite or no numbers."""
    if broken := _non_finite(folder):
        raise BrokenCheckpoint(f"{folder} is not taken: {broken}")


def newest(root: Path, *, warn: Callable[[str], None] = lambda _: None) -> Path | None:
    """The newest checkpoint that agrees with its manifest and holds finite numbers, or None."""
    for _, folder in whole(root):
        try:
            _refuse_shared(root, folder)
            verify(folder)
            _refuse_non_finite(folder)
        except BrokenCheckpoint as error:
            warn(str(error))
            continue
        return folder
    return None


def position_of(folder: Path) -> dict[str, Any]:
    """What `write` was given as the position. Raises BrokenCheckpoint."""
    try:
        position: dict[str, Any] = json.loads((folder / POSITION).read_text())
    except (OSError, ValueError) as error:
        raise BrokenCheckpoint(f"{folder} has no readable position") from error
    return position
