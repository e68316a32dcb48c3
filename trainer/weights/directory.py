"""Weights travel as a folder of safetensors, under a new name for every version.

A file is never changed once it has its name, so an engine that reads it late reads what was meant.
Implements TRL's `WeightTransferProtocol`: the trainer streams its parameters, this writes them and
asks the engines to load them.
"""

import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file

from odradek.infra.runtime.crash_points import crash_point
from odradek.trainer.commit.checkpoint import WEIGHTS
from odradek.trainer.commit.durable_files import fsync, make_durably, room, sha256_of
from odradek.trainer.errors import NonFiniteWeights
from odradek.trainer.weights.engines import Engines
from odradek.trainer.weights.finite import non_finite

_VERSION: Final = re.compile(r"v(\d+)")


class DirectoryTransfer:
    """Writes `<root>/v<version>/model.safetensors` and reloads engines from it.

    Another kind of weights overrides `_write`, `file` and `form`.

    Attributes:
        file: The name of their file, whose sha256 is `digest`.
        form: What their announcement calls the folder's form.
        version: What the next weights are called; set by the trainer before each transfer.
        folder: Where the last written weights are.
        digest: sha256 of their file.
        served: By address, the version that each engine serves since; 0 where nobody knows.
    """

    file = WEIGHTS
    form = "safetensors"

    def __init__(
        self,
        root: Path,
        engines: Engines,
        *,
        config: Path | None,
        keep: int,
        at: Callable[[str], None] = crash_point,
    ) -> None:
        self.version = 0
        self.folder = root
        self.digest = ""
        self.served: dict[str, int] = {}
        self._root = root.absolute()
        self._engines = engines
        # Read now: it may lie in a checkpoint, and those rotate.
        self._config = config.read_bytes() if config is not None and config.is_file() else None
        self._keep = keep
        self._at = at

    def reach(self) -> None:
        """Return once one of the engines answers. Raises EngineDown."""
        self._engines.reach()

    def init_weight_transfer(self) -> None:
        """Make the folder. Raises NoRoom."""
        with room(self._root):
            make_durably(self._root)

    def pause(self) -> None:
        """Nothing yet: engines go on sampling while the file is written."""

    def send_weights(self, iterator: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Write the parameters under the next version's name.

        Raises:
            NoRoom: The disk is full or may not be written to.
            NonFiniteWeights: One of them is no number; nothing is written.
        """
        parameters = list(iterator)
        if name := non_finite(parameters):
            problem = f"{name!r} holds something infinite or no number"
            raise NonFiniteWeights(f"version {self.version} is not sent: {problem}")
        folder = self._root / f"v{self.version}"
        partial = self._root / f".partial-v{self.version}"
        with room(self._root):
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(folder, ignore_errors=True)  # never announced, or it had another number
            partial.mkdir(parents=True)
            self._write(partial, dict(parameters))
            for path in (*partial.iterdir(), partial):
                fsync(path)
            partial.rename(folder)
            fsync(self._root)
        self.folder = folder
        self.digest = sha256_of(folder / self.file)

    def _write(self, folder: Path, parameters: dict[str, torch.Tensor]) -> None:
        """Write the files of a version."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in parameters.items()}
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        if self._config is not None:
            (folder / "config.json").write_bytes(self._config)

    def resume(self) -> None:
        """Load the written weights into every engine; one that is away loads them when it returns.

        Raises EngineDown or EngineRefused if none of them has it.
        """
        self._at("weights_before_engine")
        self.served = self._engines.swap(self.folder, self.version)
        self._rotate()

    def destroy(self) -> None:
        """Look after the engines no longer."""
        self._engines.close()

    def _rotate(self) -> None:
        versions = sorted(
            (int(match[1]), path)
            for path in self._root.iterdir()
            if (match := _VERSION.fullmatch(path.name))
        )
        for _, path in versions[: -self._keep]:
            shutil.rmtree(path, ignore_errors=True)
