"""A run that the ledger knows goes on from its checkpoint, or says that it cannot."""

import shutil

import pytest

from odradek.schemas.events import Step
from odradek.trainer.commit import checkpoint
from odradek.trainer.commit.resume import stand
from odradek.trainer.errors import BadSettings
from odradek.trainer.feed.cursor import Position
from odradek.trainer.settings import TrainerSettings


def entry(step, digest=""):
    return Step(
        run="main", incarnation=1, step=step, position=step, version=step, checkpoint=digest
    )


def save(root, step):
    """A checkpoint, and the ledger's entry that announces it."""
    said = {"offset": step, "row": 0, "step": step, "version": step, "run": "main",
            "topic": "rl.batches.v1", "entry": {"run": "main", "incarnation": 1, "step": step, "position": step}}  # fmt: skip
    files = {"model.safetensors": [b"weights"]}
    return entry(step, checkpoint.write(root, step, files, keep=3, position=said))


def removed(root):
    shutil.rmtree(root)


def emptied(root):
    shutil.rmtree(root)
    root.mkdir()


def damaged(root):
    for file in root.glob("*/model.safetensors"):
        file.write_bytes(b"sthgiew")


LOSSES = pytest.mark.parametrize("lose", [removed, emptied, damaged])


@LOSSES
def test_a_run_whose_checkpoints_cannot_be_loaded_does_not_begin_anew(tmp_path, lose):
    """In one line it says what is missing and the three things that can be done."""
    root = tmp_path / "policy"
    ledger = [save(root, 1), save(root, 2)]
    lose(root)
    with pytest.raises(BadSettings) as told:
        stand(TrainerSettings(output_dir=root), ledger, [])
    line = str(told.value)
    assert "\n" not in line
    for words in ("run 'main'", "step 2", str(root), "restore", "--run", "--begin-anew"):
        assert words in line


@LOSSES
def test_a_run_that_is_told_to_begins_anew_above_all_versions(tmp_path, lose):
    """As another start of the same run: from the first batch, with a number that nobody had."""
    root = tmp_path / "policy"
    ledger = [save(root, 1), save(root, 2)]
    lose(root)
    found = stand(TrainerSettings(output_dir=root, begin_anew=True), ledger, [])
    assert (2, 2, None, Position()) == (
        found.incarnation, found.version, found.folder, found.position
    )  # fmt: skip


def test_a_run_that_may_begin_anew_goes_on_where_it_can(tmp_path):
    """A supervisor starts it again and again with the same settings."""
    ledger = [save(tmp_path, 1)]
    found = stand(TrainerSettings(output_dir=tmp_path, begin_anew=True), ledger, [])
    assert 1 == found.position.step


@pytest.mark.parametrize("ledger", [[], [entry(1)], [Step(run="other", incarnation=1, step=9, position=9, checkpoint="c")]])  # fmt: skip
def test_a_run_that_never_told_of_a_checkpoint_begins(tmp_path, ledger):
    """It died before its first one, or others wrote the ledger."""
    assert Position() == stand(TrainerSettings(output_dir=tmp_path), ledger, []).position


def test_a_line_begun_anew_keeps_its_checkpoints_before_damaged_ones_of_later_steps(tmp_path):
    """Rotation counts what the line has come to, or it would take the only whole one away."""
    for step in (7, 8, 9):
        save(tmp_path, step)
    damaged(tmp_path)
    save(tmp_path, 1)
    assert tmp_path / "checkpoint-1" == checkpoint.newest(tmp_path)
