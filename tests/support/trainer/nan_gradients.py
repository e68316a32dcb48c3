"""Optimizer steps whose gradient is no number, as a fault of a kernel or of a row would make it."""

import math
from typing import Any


def spoil(trainer: Any, *steps: int, number: float = math.nan) -> None:
    """Let the gradient of a trainer's first parameter be no number in steps of these numbers."""
    first = next(trainer.model.parameters())
    first.register_hook(
        lambda slope: slope * number if trainer.state.global_step + 1 in steps else slope
    )
