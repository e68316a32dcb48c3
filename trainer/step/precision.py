"""In which precision a step is computed; its weights are always kept in float32.

A weight in bfloat16 has 8 bits, and steps of a usual learning rate are smaller: in bfloat16 alone
hardly a weight would move. So with `bfloat16` the optimizer works on float32 weights, and only the
matrix products of forward and backward passes are taken in bfloat16 (mixed precision,
arXiv 1710.03740, section 3.1; bfloat16 needs no loss scaling, arXiv 1905.12322).
"""

from contextlib import AbstractContextManager
from typing import Final

import torch

from odradek.trainer.errors import BadSettings
from odradek.trainer.settings import Precision, TransferDtype

EXACT: Final = "float32"
MIXED: Final = "bfloat16"


def resolved(precision: Precision, device: torch.device) -> str:
    """What `auto` is on a device: bfloat16 on GPUs that have it, else float32.

    Raises BadSettings for bfloat16 on a GPU without it.
    """
    if device.type == "cpu":
        return EXACT if precision == "auto" else precision
    has_it = torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == MIXED and not has_it:
        raise BadSettings(
            "precision is bfloat16, but this GPU has no bfloat16 (it came with Ampere): set "
            "precision = float32"
        )
    if precision == "auto":
        return MIXED if has_it else EXACT
    return precision


def autocast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """A block whose matrix products are taken in a resolved precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == MIXED)


def sent(transfer_dtype: TransferDtype, *, cpu: bool) -> torch.dtype | None:
    """What weights are rounded to on their way to the engines; None leaves them as they are.

    An engine that computes in bfloat16 rounds float32 weights to the same numbers as it loads them:
    it is only half as much to write and to read.

    Args:
        transfer_dtype: Of the settings.
        cpu: Whether the run trains on a CPU.
    """
    if transfer_dtype == "auto":
        transfer_dtype = EXACT if cpu else MIXED
    return torch.bfloat16 if transfer_dtype == MIXED else None


def use_tf32(*, allowed: bool) -> None:
    """Let products of float32 matrices have the ten bits of TensorFloat-32, or all 23."""
    torch.set_float32_matmul_precision("high" if allowed else "highest")


def described(precision: str, device: torch.device, *, tf32: bool) -> str:
    """Precision in words, for the line at the start."""
    if precision == MIXED:
        return "float32 weights, bfloat16 products"
    return "float32" if device.type == "cpu" or not tf32 else "float32 weights, TF32 products"
