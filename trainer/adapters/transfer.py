"""Each version of an adapter travels as a folder, which engines know by a name of its own."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import torch

from odradek.infra.runtime.crash_points import crash_point
from odradek.schemas.events import LORA
from odradek.trainer.adapters import files
from odradek.trainer.adapters.client import AdapterClient, AdapterTerms
from odradek.trainer.adapters.shape import AdapterShape
from odradek.trainer.settings import TrainerSettings
from odradek.trainer.weights.directory import DirectoryTransfer
from odradek.trainer.weights.engines import Engines
from odradek.trainer.weights.recognition import RecognizedEngine

KEPT: Final = 6
"""Versions of transferred weights that stay on the disk, at least."""


class AdapterTransfer(DirectoryTransfer):
    """Writes `<root>/v<version>` as an adapter, and has the engines load it.

    Args:
        root: Folder of all versions.
        engines: Which load adapters.
        settings: Of the run.
        keep: Versions that stay.
        at: Called at each crash point.
    """

    form = LORA

    def __init__(
        self,
        root: Path,
        engines: Engines,
        settings: TrainerSettings,
        *,
        keep: int,
        at: Callable[[str], None] = crash_point,
    ) -> None:
        super().__init__(root, engines, config=None, keep=keep, at=at)
        self._settings = settings

    def _write(self, folder: Path, parameters: dict[str, torch.Tensor]) -> str:
        given = self._settings
        shape = AdapterShape(given.lora_rank, given.lora_alpha, given.lora_rslora)
        return files.write(folder, parameters, shape, base=given.model)


def _terms_of(settings: TrainerSettings) -> AdapterTerms:
    """What the run's adapters are called, and how many of them engines keep."""
    return AdapterTerms(settings.policy_name, settings.lora_rank, settings.max_staleness + 1)


def engines_of(settings: TrainerSettings, tell: Callable[[str], None]) -> Engines:
    """The engines of a run, which take whole weights or adapters."""
    through = partial(AdapterClient, terms=_terms_of(settings)) if settings.lora_rank else None
    timeout_s = settings.engine_timeout_s
    client = partial(RecognizedEngine, quiet_s=timeout_s, through=through)
    return Engines(settings.engines, timeout_s=timeout_s, tell=tell, client=client)


def transfer_of(
    settings: TrainerSettings,
    engines: Engines,
    checkpoint: Path | None,
    dtype: torch.dtype | None = None,
) -> DirectoryTransfer:
    """What brings a run's weights to its engines; whole ones are rounded to `dtype`.

    An engine that is behind reads an adapter's folder again whenever it is asked for it, so each
    stays for as long as rows of its version are taken.
    """
    root = settings.output_dir / "weights"
    if settings.lora_rank:
        return AdapterTransfer(root, engines, settings, keep=max(KEPT, settings.max_staleness + 2))
    config = (checkpoint or Path(settings.model)) / "config.json"
    return DirectoryTransfer(root, engines, config=config, keep=KEPT, dtype=dtype)
