"""Checkpoints that are written while the run goes on: of one moment, one at a time, told when durable."""

import threading

import pytest
import torch
from safetensors.torch import load_file

from odradek.trainer.commit import checkpoint
from odradek.trainer.commit.protocol import AwaitCheckpoint, SaveCheckpoint
from odradek.trainer.errors import NoRoom
from odradek.trainer.saving.run_checkpoints import RunCheckpoints, RunState

pytestmark = pytest.mark.torch


@pytest.fixture
def held(monkeypatch):
    """The writer waits at its beginning until this is set."""
    free = threading.Event()
    write = checkpoint.write
    monkeypatch.setattr(checkpoint, "write", lambda *a, **k: (free.wait(30), write(*a, **k))[1])
    return free


def checkpoints(folder):
    return RunCheckpoints(folder, 3, lambda _: {"config.json": b"{}"}, lambda _: None)


def test_a_checkpoint_holds_the_state_of_the_moment_in_which_it_was_begun(tmp_path, held):
    """Though the weights change in place before the first byte is written; and so does the next."""
    weights = torch.zeros(3)
    saves, took = checkpoints(tmp_path), {}
    for step in (1, 2):
        held.clear()
        weights += 1
        saves.make(SaveCheckpoint(step, {}), lambda: RunState({"model": {"w": weights}}), took)
        weights += 10
        assert None is saves.make(AwaitCheckpoint(wait=False), None, took)
        held.set()
        saved = saves.make(AwaitCheckpoint(wait=True), None, took)
        folder = tmp_path / f"checkpoint-{step}"
        assert (step, checkpoint.verify(folder)) == (saved.step, saved.digest)
        assert [step * 11 - 10.0] * 3 == load_file(folder / "model.safetensors")["w"].tolist()
        assert took.pop("checkpoint_s") > 0
        assert took.pop("checkpoint_write_s") > 0
    saves.close()


def test_two_checkpoints_are_never_written_at_once(tmp_path, held):
    """They would share the memory of their copies."""
    saves = checkpoints(tmp_path)
    saves.make(SaveCheckpoint(1, {}), lambda: RunState({}), {})
    with pytest.raises(RuntimeError, match="step 1 is still being written"):
        saves.make(SaveCheckpoint(2, {}), lambda: RunState({}), {})
    held.set()
    saves.close()
    assert [1] == [step for step, _ in checkpoint.whole(tmp_path)]


def test_training_goes_on_while_a_checkpoint_is_written(groups, bench, held):
    """Its step is told without it, and it is told once it is durable."""
    made = bench(groups, max_steps=2, save_every=1)
    told = made.announced.step

    def step(entry):
        told(entry)
        if entry.optimized:
            held.set()

    made.announced.step = step
    made.trainer.run()
    line = [(e.step, e.optimized, bool(e.checkpoint)) for e in made.announced.steps]
    assert (1, True, False) in line
    assert line.index((1, True, False)) < line.index((1, False, True))
    assert (2, False, True) == line[-1]


def test_what_ends_the_writer_ends_the_run(groups, bench, monkeypatch):
    """With its own line; nothing is told as durable that is not."""

    def full(*_, **__):
        raise NoRoom("the disk cannot be written")

    monkeypatch.setattr(checkpoint, "write", full)
    made = bench(groups, max_steps=9, save_every=1)
    with pytest.raises(NoRoom, match="cannot be written"):
        made.trainer.run()
    assert [] == [entry.step for entry in made.announced.steps if entry.checkpoint]
    assert len([entry for entry in made.announced.steps if entry.optimized]) <= 2


def test_a_run_that_ends_with_an_error_leaves_its_last_checkpoint_whole(
    groups, bench, resume, monkeypatch
):
    """It is durable when the process ends, though nobody was told."""
    made = bench(groups, max_steps=9, save_every=1, name="run")
    policy = made.announced.policy

    def second(event):
        if event.step == 1:
            raise KeyboardInterrupt
        policy(event)

    monkeypatch.setattr(made.announced, "policy", second)
    with pytest.raises(KeyboardInterrupt):
        made.trainer.run()
    assert 1 == resume(checkpoint.newest(made.settings.output_dir)).position.step
