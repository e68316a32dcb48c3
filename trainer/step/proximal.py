"""The proximal policy: the weights of one step before, kept where `tis` is set.

PPO's old policy has two uses. Importance weights need the policy that sampled; the clip needs a
recent one, since it bounds how fast the weights move (Batch size-invariance for policy
optimization, arXiv 2110.00641, section 3). With `tis` they are two policies, as in AReaL
(arXiv 2505.24298, equation 5), and the recent one is the policy one step behind the one that is
trained: a step has one update, so the policy at its own beginning is the trained one itself, whose
ratio is always 1. Which weights these are follows from the number of the step alone, so a run that
is resumed, or a replay, clips the same tokens.
"""

from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file, save_file

from odradek.trainer.errors import BrokenCheckpoint

FILE: Final = "proximal.safetensors"


class ProximalPolicy:
    """A frozen copy of the model, one step behind it.

    Args:
        frozen: A model of the same shape; its weights do not matter. It is made before the run
            begins, since the folder that it comes from may be a checkpoint, and those rotate.

    Attributes:
        model: None as long as no step was made: the policy is its own proximal policy then.
    """

    def __init__(self, frozen: torch.nn.Module) -> None:
        self.model: torch.nn.Module | None = None
        self._frozen = frozen

    @torch.no_grad()
    def follow(self, model: torch.nn.Module) -> None:
        """Take a model's weights, just before a step changes them."""
        for own, now in zip(self._frozen.parameters(), model.parameters(), strict=True):
            own.copy_(now)
        self.model = self._frozen

    def save(self, folder: Path) -> None:
        """Write `proximal.safetensors` into a checkpoint, if there is anything to write."""
        if self.model is not None:
            weights = self.model.named_parameters()
            tensors = {name: value.detach().cpu().contiguous() for name, value in weights}
            save_file(tensors, folder / FILE)

    @torch.no_grad()
    def load(self, folder: Path) -> None:
        """Go on from a checkpoint; one that was written without `tis` has nothing to go on from.

        Raises BrokenCheckpoint where the weights are not those of this model.
        """
        if not (folder / FILE).is_file():
            return
        tensors = load_file(folder / FILE)
        own = dict(self._frozen.named_parameters())
        if {n: v.shape for n, v in tensors.items()} != {n: v.shape for n, v in own.items()}:
            raise BrokenCheckpoint(f"{folder / FILE} holds the weights of another model")
        for name, value in tensors.items():
            own[name].copy_(value)
        self.model = self._frozen
