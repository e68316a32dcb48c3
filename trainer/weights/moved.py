"""How many weights a step has moved, as engines see them.

Engines compute in bfloat16. A step that is smaller than half of a weight's last bit there leaves
the weight as it was for them, until many of them have added up in float32.
"""

from collections.abc import Iterable
from typing import Final

import torch

SAMPLE: Final = 4096
"""Weights of each tensor that are looked at, evenly spread; all of a smaller one."""


class MovedShare:
    """Compares weights before and after a step.

    Args:
        parameters: The trained ones.
        dtype: What they are rounded to before they are compared.
    """

    def __init__(
        self, parameters: Iterable[torch.Tensor], dtype: torch.dtype = torch.bfloat16
    ) -> None:
        self._parameters = list(parameters)
        self._dtype = dtype
        self._before = self._sample()

    @torch.no_grad()
    def _sample(self) -> torch.Tensor:
        """Some weights of each tensor, rounded, shape (n,)."""
        return torch.cat(
            [
                parameter.detach().flatten()[:: max(parameter.numel() // SAMPLE, 1)][:SAMPLE]
                for parameter in self._parameters
            ]
        ).to(self._dtype)

    def share(self) -> float:
        """Which share of the sampled weights is another number now."""
        return float((self._sample() != self._before).double().mean())
