"""Weights travel as a folder of safetensors, under a new name for every version.

A file is never changed once it has its name, so an engine that reads it late reads what was meant.
Implements TRL's `WeightTransferProtocol`: the trainer streams its parameters, this writes them and
asks the engines to load them.
"""

import re
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import torch

from odradek.infra.runtime.crash_points import crash_point
from odradek.trainer.commit.durable_files import fsync, make_durably, room, write_summed
from odradek.trainer.errors import NonFiniteWeights
from odradek.trainer.saving.shards import MODEL, WRITERS, write_tensors
from odradek.trainer.weights.engines import Engines
from odradek.trainer.weights.finite import non_finite

_VERSION: Final = re.compile(r"v(\d+)")


class DirectoryTransfer:
    """Writes `<root>/v<version>/model.safetensors`, or its shards, and reloads engines from it.

    Args:
        root: Folder of all versions.
        engines: Which load them.
        config: The model's configuration, which goes along.
        keep: Versions that stay.
        dtype: What weights are rounded to as they are written; None leaves them as they are.
        at: Called at each crash point.

    Another kind of weights overrides `_write` and `form`.

    Attributes:
        form: What their announcement calls the folder's form.
        version: What the next weights are called; set by the trainer before each transfer.
        folder: Where the last written weights are.
        digest: sha256 of their file; of several shards, that of their index.
        served: By address, the version that each engine serves since; 0 where nobody knows.
    """

    form = "safetensors"

    def __init__(
        self,
        root: Path,
        engines: Engines,
        *,
        config: Path | None,
        keep: int,
        dtype: torch.dtype | None = None,
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
        self._dtype = dtype
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
            digest = self._write(partial, dict(parameters))
            fsync(partial)
            partial.rename(folder)
            fsync(self._root)
        self.folder, self.digest = folder, digest

    def _write(self, folder: Path, parameters: dict[str, torch.Tensor]) -> str:
        """Write the files of a version durably; returns the digest of its weights."""
        if self._config is not None:
            write_summed(folder / "config.json", [self._config])
        with ThreadPoolExecutor(WRITERS, thread_name_prefix="weights") as pool:
            return write_tensors(folder, MODEL, parameters, dtype=self._dtype, mapped=pool.map)

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
