"""R11: a disk that is full under checkpoints and weights, on a small file system of its own."""

import os
import shutil
import subprocess

import pytest

from odradek.trainer.commit import checkpoint
from odradek.trainer.errors import NoRoom

pytestmark = pytest.mark.torch

ROOM_MB = 12


@pytest.fixture
def small_disk(tmp_path):
    """A tmpfs of a few MB, where one may be mounted."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small tmpfs needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={ROOM_MB}m", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def leave(disk, kb):
    """Fill the disk up to so many KB."""
    free = shutil.disk_usage(disk).free
    (disk / "ballast").write_bytes(b"\0" * max(free - kb * 1024, 0))


@pytest.fixture(scope="module")
def whole():
    """The last step of a run whose disk had room."""
    return []


@pytest.mark.parametrize("kb", [0, 8, 1400, 2600])
def test_a_full_disk_ends_the_trainer_and_space_lets_it_go_on(
    bench, groups, resume, small_disk, whole, kb
):
    """Whichever file meets the end of the disk: one clear line, the last checkpoint, same weights."""
    if not whole:
        undisturbed = bench(groups, max_steps=3, rows_per_step=8)
        undisturbed.trainer.run()
        whole.append(undisturbed.announced.steps[-1])
    output = small_disk / "runs"
    how = {"rows_per_step": 8, "save_every": 1, "keep": 1, "name": output}
    first = bench(groups, max_steps=1, **how)
    first.trainer.run()
    leave(small_disk, kb)
    full = bench(groups, max_steps=3, standing=resume(output / "checkpoint-1"), **how)
    try:
        with pytest.raises(NoRoom, match="No space left on device"):
            full.trainer.run()
    finally:
        full.trainer.parts.feed.stop()
    told = {step.checkpoint for step in first.announced.steps + full.announced.steps} - {""}
    newest = checkpoint.newest(output)
    assert newest is not None
    assert checkpoint.verify(newest) in told
    (small_disk / "ballast").unlink()
    again = bench(groups, max_steps=3, standing=resume(newest), **how)
    assert 3 == again.trainer.run()
    assert whole[0].weights == again.announced.steps[-1].weights
