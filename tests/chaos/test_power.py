"""A power cut at any moment: every checkpoint that the log knows of can be loaded."""

import contextlib
import os
from pathlib import Path

import pytest

from odradek.trainer.commit import checkpoint, durable_files
from odradek.trainer.errors import BrokenCheckpoint
from tests.chaos.faults.power_cut import watched

POINTS = (
    "between_files", "files_before_manifest", "manifest_before_rename", "renamed_before_durable",
    "renamed_before_rotate",
)  # fmt: skip
ROOT = Path("runs") / "policy"


class Cut(BaseException):
    """The power goes."""


def files():
    return {"model.safetensors": [os.urandom(64)], "deep/er/more.json": [b"{}"]}


def write(root, step, at=lambda _: None):
    return checkpoint.write(root, step, files(), keep=1, position={"offset": step}, at=at)


def on_the_way(point, disk, into, left):
    """At a point, look at what a cut would leave."""

    def at(name):
        if name == point:
            left.append(disk.after_a_cut(into / f"{point}-{len(left)}"))

    return at


@pytest.fixture
def disk(tmp_path):
    """A disk, and a place for what is left of it."""
    (tmp_path / "disk").mkdir()
    with watched(tmp_path / "disk") as found:
        yield found


def test_a_checkpoint_that_was_written_outlives_the_power(disk, tmp_path):
    """Its bytes, its folders and the folders above it, made by the same call."""
    digest = write(disk.root / ROOT, 1)
    left = disk.after_a_cut(tmp_path / "left")
    newest = checkpoint.newest(left / ROOT)
    assert newest is not None
    assert digest == checkpoint.verify(newest)
    assert (newest / "deep" / "er" / "more.json").is_file()


@pytest.mark.parametrize("point", POINTS)
def test_a_cut_while_one_is_written_leaves_the_one_before(disk, tmp_path, point):
    """The old one or the new one, whole, wherever the power goes; rotation comes after."""
    digests = {write(disk.root / ROOT, 1)}
    left: list[Path] = []
    digests.add(write(disk.root / ROOT, 2, on_the_way(point, disk, tmp_path / "left", left)))
    assert left
    for found in left:
        newest = checkpoint.newest(found / ROOT)
        assert newest is not None
        assert checkpoint.verify(newest) in digests


def nothing(path: Path) -> None:
    """A planted fault: fsync dropped."""


def only_files(path: Path) -> None:
    """A planted fault: folders are not fsynced."""
    if path.is_file():
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


@pytest.mark.parametrize("fault", [nothing, only_files])
def test_a_dropped_fsync_is_caught(disk, tmp_path, monkeypatch, fault):
    """The checkpoint looks whole until the power goes."""
    monkeypatch.setattr(durable_files, "fsync", fault)
    digest = write(disk.root / ROOT, 1)
    assert digest == checkpoint.verify(checkpoint.newest(disk.root / ROOT))
    assert checkpoint.newest(disk.after_a_cut(tmp_path / "left") / ROOT) is None


def test_a_dropped_fsync_of_one_file_is_caught(disk, tmp_path, monkeypatch):
    """One file of many: the manifest tells."""
    real = durable_files.fsync
    monkeypatch.setattr(
        durable_files,
        "fsync",
        lambda path: None if path.name == "model.safetensors" else real(path),
    )
    write(disk.root / ROOT, 1)
    ((_, folder),) = checkpoint.whole(disk.after_a_cut(tmp_path / "left") / ROOT)
    with pytest.raises(BrokenCheckpoint, match=r"model\.safetensors"):
        checkpoint.verify(folder)


def test_a_kill_is_no_cut(disk, tmp_path):
    """What the model forgets is what was not fsynced; a killed process' files are all there."""
    with contextlib.suppress(Cut):

        def at(name):
            if name == "renamed_before_durable":
                raise Cut

        write(disk.root / ROOT, 1, at)
    assert checkpoint.newest(disk.root / ROOT) is not None
    assert checkpoint.newest(disk.after_a_cut(tmp_path / "left") / ROOT) is None
