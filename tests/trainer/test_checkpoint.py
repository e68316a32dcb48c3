"""A checkpoint is whole or not there, wherever its writer dies."""

import contextlib
import errno
import os
from pathlib import Path

import pytest

from odradek.trainer.commit import checkpoint, durable_files
from odradek.trainer.errors import BrokenCheckpoint, NoRoom


class Died(BaseException):
    """kill -9, as far as Python can play it."""


def files():
    return {"model.safetensors": [b"weights"] * 100, "deep/more.json": [b"{}"]}


def write(root, step, keep=3):
    return checkpoint.write(root, step, files(), keep=keep, position={"offset": step})


def test_what_was_written_is_found_verified_and_rotated(tmp_path):
    """The newest of those that are kept, with its position inside."""
    digests = [write(tmp_path, step, keep=2) for step in (1, 2, 10)]
    newest = checkpoint.newest(tmp_path)
    assert tmp_path / "checkpoint-10" == newest
    assert {"offset": 10} == checkpoint.position_of(newest)
    assert digests[-1] == checkpoint.verify(newest)
    assert [10, 2] == [step for step, _ in checkpoint.whole(tmp_path)]


KILLS = ("bytes", "fsync", "mkdir", "open", "rename", "rmtree")


@pytest.mark.parametrize("at", range(12))
@pytest.mark.parametrize("call", KILLS)
def test_dying_at_any_call_leaves_a_whole_checkpoint(tmp_path, monkeypatch, call, at):
    """Whatever call it dies in, the newest whole checkpoint is the old one or the new one."""
    write(tmp_path, 1, keep=1)
    left = [at]

    def deadly(real):
        def called(*arguments, **named):
            left[0] -= 1
            if left[0] < 0:
                raise Died
            return real(*arguments, **named)

        return called

    with monkeypatch.context() as patch:
        if call in {"mkdir", "open", "rename"}:
            patch.setattr(Path, call, deadly(getattr(Path, call)))
        elif call == "rmtree":
            patch.setattr(checkpoint.shutil, "rmtree", deadly(checkpoint.shutil.rmtree))
        elif call == "fsync":
            patch.setattr(durable_files, "fsync", deadly(durable_files.fsync))
        contents = files()
        if call == "bytes":
            contents = {
                name: map(deadly(lambda piece: piece), pieces) for name, pieces in contents.items()
            }
        with contextlib.suppress(Died):
            checkpoint.write(tmp_path, 2, contents, keep=1, position={"offset": 2})
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found.name in {"checkpoint-1", "checkpoint-2"}
    write(tmp_path, 2, keep=1)
    assert tmp_path / "checkpoint-2" == checkpoint.newest(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "position.json", "manifest.json"])
@pytest.mark.parametrize("how", ["cut", "changed", "gone"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path, name, how):
    """Each file counts; the reason is told."""
    write(tmp_path, 1)
    write(tmp_path, 2)
    file = tmp_path / "checkpoint-2" / name
    if how == "gone":
        file.unlink()
    elif how == "cut":
        file.write_bytes(file.read_bytes()[:-1] if name != "manifest.json" else b"{")
    else:
        file.write_bytes(b"x" + file.read_bytes()[1:])
    told = []
    assert tmp_path / "checkpoint-1" == checkpoint.newest(tmp_path, warn=told.append)
    assert 1 == len(told)
    assert "checkpoint-2" in told[0]
    with pytest.raises(BrokenCheckpoint):
        checkpoint.verify(tmp_path / "checkpoint-2")


def test_a_full_disk_is_one_clear_line_and_harms_nothing(tmp_path):
    """NoRoom, and the checkpoint before is still the newest."""
    write(tmp_path, 1)

    def full():
        yield b"x"
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(NoRoom, match="No space left"):
        checkpoint.write(tmp_path, 2, {"part": full()}, keep=3, position={})
    assert tmp_path / "checkpoint-1" == checkpoint.newest(tmp_path)


def test_no_file_is_read_back_for_its_sum(tmp_path, monkeypatch):
    """Its bytes were hashed on their way; so were those of transferred weights."""
    real = Path.open

    def only_to_write(path, mode="r", *more, **named):
        assert "r" not in mode, f"{path} is read back"
        return real(path, mode, *more, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", only_to_write)
        patch.setattr(durable_files, "sha256_of", None)
        digest = write(tmp_path, 1)
    assert digest == checkpoint.verify(tmp_path / "checkpoint-1")
