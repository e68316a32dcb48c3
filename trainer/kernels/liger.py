"""Liger's kernels for norms and MLPs (liger-kernel, arXiv 2410.10989). Never run on a card."""

from typing import Any, Final

from transformers.integrations.liger import apply_liger_kernel

KERNELS: Final = {
    "rms_norm": True,
    "layer_norm": True,
    "swiglu": True,
    "geglu": True,
    "rope": False,
    "cross_entropy": False,
    "fused_linear_cross_entropy": False,
}
"""Norms and MLPs only: rotations follow a tree's own positions, and the head and its loss are
TRL's and ours. A model that has no such part leaves the word out."""


def use_liger(model: Any) -> None:
    """Let Liger compute the norms and MLPs of a model that is on a GPU, in place."""
    apply_liger_kernel(model, dict(KERNELS))
