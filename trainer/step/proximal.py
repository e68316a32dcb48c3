"""The proximal policy: the weights of one step before, kept where `tis` is set.

PPO's old policy has two uses. Importance weights need the policy that sampled; the clip needs a
recent one, since it bounds how fast the weights move (Batch size-invariance for policy
optimization, arXiv 2110.00641, section 2). With `tis` they are two policies, as in AReaL
(arXiv 2505.24298, equation 5), and the recent one is the policy one step behind the one that is
trained: a step has one update, so the policy at its own beginning is the trained one itself, whose
ratio is always 1. Which weights these are follows from the number of the step alone, so a run that
is resumed, or a replay, clips the same tokens.
"""

from pathlib import Path
from typing import Any

import torch
from trl.trainer.utils import create_model_from_path

from odradek.trainer.adapters.lora import LoraAdapter
from odradek.trainer.adapters.policies import OlderAdapter, WithoutAdapter
from odradek.trainer.commit.optimizer_state import loaded
from odradek.trainer.errors import BrokenCheckpoint
from odradek.trainer.saving.run_checkpoints import PROXIMAL
from odradek.trainer.saving.start_folder import check_folder
from odradek.trainer.settings import TrainerSettings
from odradek.trainer.step import attention
from odradek.trainer.step.logprobs import add_head


def frozen_policies(
    settings: TrainerSettings, begin: str, model: Any, adapter: LoraAdapter | None
) -> tuple[Any, "ProximalPolicy | None"]:
    """The reference policy, where there is a KL term, and the proximal one, where there is `tis`.

    Args:
        settings: Of the run.
        begin: Folder that the model was loaded from.
        model: The trained one.
        adapter: What of it is trained; None for all of it.
    """
    reference, proximal = None, None
    if settings.kl > 0:
        reference = (
            _copy(settings.model, model) if adapter is None else WithoutAdapter(model, adapter)
        )
    if settings.tis > 0:
        proximal = ProximalPolicy(
            _copy(begin, model) if adapter is None else OlderAdapter(model, adapter)
        )
    return reference, proximal


def _copy(path: str, model: Any) -> Any:
    """The model of a folder where another one is, to score rows with and never to train.

    Raises NoModel where the folder is not there any more, for one.
    """
    check_folder(path, verified=True)
    copy = create_model_from_path(
        path,
        device_map=None,
        attn_implementation=attention.NAME,
        dtype="float32",
    )
    add_head(copy)
    return copy.to(model.device).requires_grad_(requires_grad=False).eval()


class ProximalPolicy:
    """A frozen copy of the model, one step behind it.

    Args:
        frozen: A model of the same shape, or one with a copy of the adapter that is trained; its
            weights do not matter. It is made before the run begins, since the folder that it comes
            from may be a checkpoint, and those rotate.

    Attributes:
        model: None as long as no step was made: the policy is its own proximal policy then.
    """

    def __init__(self, frozen: Any) -> None:
        self.model: Any = None
        self._frozen = frozen

    @torch.no_grad()
    def follow(self, model: torch.nn.Module | LoraAdapter) -> None:
        """Take the weights of a model, or of its adapter, just before a step changes them."""
        for own, now in zip(self._frozen.parameters(), model.parameters(), strict=True):
            own.copy_(now)
        self.model = self._frozen

    def tensors(self) -> dict[str, torch.Tensor]:
        """What a checkpoint needs of it: its weights, if there are any yet."""
        if self.model is None:
            return {}
        return {name: value.detach() for name, value in self.model.named_parameters()}

    @torch.no_grad()
    def load(self, folder: Path) -> None:
        """Go on from a checkpoint; one that was written without `tis` has nothing to go on from.

        Raises BrokenCheckpoint where the weights are not those of this model.
        """
        tensors = loaded(folder, PROXIMAL)
        if not tensors:
            return
        own = dict(self._frozen.named_parameters())
        if {n: v.shape for n, v in tensors.items()} != {n: v.shape for n, v in own.items()}:
            raise BrokenCheckpoint(
                f"{folder / PROXIMAL}.safetensors holds the weights of another model"
            )
        for name, value in tensors.items():
            own[name].copy_(value)
        self.model = self._frozen
