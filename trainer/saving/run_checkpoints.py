"""A run's checkpoints: the state of one moment, copied by the training thread, then written."""

import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch

from odradek.trainer.commit import checkpoint, optimizer_state
from odradek.trainer.commit.durable_files import Buffer, room
from odradek.trainer.commit.optimizer_state import OPTIMIZER
from odradek.trainer.commit.protocol import AwaitCheckpoint, SaveCheckpoint, Saved
from odradek.trainer.saving.shards import files_of
from odradek.trainer.saving.snapshot import SnapshotRoom
from odradek.trainer.saving.writer import CheckpointWriter

PROXIMAL: Final = "proximal"
"""How the names of the proximal policy's files begin."""


@dataclass(frozen=True)
class RunState:
    """All that a resumed run needs, none of it pickled.

    Attributes:
        tensors: By how the names of their files begin. They may be the trainer's own.
        files: The rest of what a step changes, by file name.
        metadata: Of files of tensors, beside the usual; by how their names begin.
    """

    tensors: Mapping[str, Mapping[str, torch.Tensor]]
    files: Mapping[str, bytes] = field(default_factory=dict)
    metadata: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def whole_state(
    weights: RunState,
    proximal: Mapping[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    progress: Any,
) -> RunState:
    """Everything of a trainer that a checkpoint holds.

    Args:
        weights: The model's, or its adapter's.
        proximal: The proximal policy's, if there is any.
        optimizer: That trains them.
        scheduler: Of its learning rate.
        progress: State of transformers' trainer.
    """
    moments, rest = optimizer_state.state_of(optimizer, scheduler)
    tensors = {**weights.tensors, OPTIMIZER: moments}
    if proximal:
        tensors[PROXIMAL] = proximal
    step = json.dumps(dataclasses.asdict(progress), indent=2, sort_keys=True) + "\n"
    files = {**weights.files, optimizer_state.GROUPS: rest, "trainer_state.json": step.encode()}
    return RunState(tensors, files, weights.metadata)


class RunCheckpoints:
    """Takes and writes the checkpoints of one start of a run.

    Args:
        folder: Of the run; see `checkpoint`.
        keep: How many stay.
        plain: Files that training does not change, by name; asked for once, with a folder to work
            in.
        at: Called at each crash point.
    """

    def __init__(
        self,
        folder: Path,
        keep: int,
        plain: Callable[[Path], Mapping[str, bytes]],
        at: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._keep = keep
        self._make_plain = plain
        self._plain: Mapping[str, bytes] | None = None
        self._at = at
        self._room = SnapshotRoom()
        self._writer = CheckpointWriter()

    def make(
        self,
        move: SaveCheckpoint | AwaitCheckpoint,
        state: Callable[[], RunState],
        metrics: dict[str, float],
    ) -> Saved | None:
        """Make a move of the commit protocol.

        Args:
            move: Which.
            state: Asked for what a checkpoint is to hold; it may not change until this returns.
            metrics: Get the seconds that the calling thread spends here (`checkpoint_s`), unless it
                only looks, and those that a checkpoint was written (`checkpoint_write_s`).

        Raises what ended the writing, such as NoRoom.
        """
        if isinstance(move, AwaitCheckpoint) and not move.wait:
            saved = self._writer.result(wait=False)
        else:
            began = time.perf_counter()
            saved = None
            if isinstance(move, SaveCheckpoint):
                self._begin(move, state())
            else:
                saved = self._writer.result(wait=True)
            took = time.perf_counter() - began
            metrics["checkpoint_s"] = metrics.get("checkpoint_s", 0.0) + took
        if saved is not None:
            metrics["checkpoint_write_s"] = saved.seconds
        return saved

    def _begin(self, save: SaveCheckpoint, state: RunState) -> None:
        """Copy a state, and write it from here on."""
        copies = {
            prefix: self._room.copied(prefix, tensors) for prefix, tensors in state.tensors.items()
        }
        files: dict[str, Iterable[Buffer]] = {
            name: [content] for name, content in {**self._unchanged(), **state.files}.items()
        }
        for prefix, tensors in copies.items():
            files |= files_of(prefix, tensors, metadata=state.metadata.get(prefix, {}))
        self._writer.begin(
            save.step,
            lambda mapped: checkpoint.write(
                self._folder,
                save.step,
                files,
                keep=self._keep,
                position=save.position,
                mapped=mapped,
                at=self._at,
            ),
        )

    def _unchanged(self) -> Mapping[str, bytes]:
        if self._plain is None:
            with room(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True)
                self._plain = self._make_plain(self._folder)
        return self._plain

    def close(self) -> None:
        """Wait for what is being written."""
        self._writer.close()
