"""Whether an optimizer step may be made: what is no number must never come into the weights.

Adam's moments remember: one infinite gradient makes its weight useless for ever, and weights that
are no numbers make everything so. So a step is looked at before it is made, not undone afterwards:
its loss, the norm of its gradient, and what the optimizer would make of them.
"""

import math
from collections.abc import Iterable
from typing import Any, Final

import torch

_OVERFLOW: Final = "without overflow"
"""What torch says of a learning rate that the weights' type cannot hold."""


def non_finite(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """The name of the first tensor that holds something infinite or no number, or ""."""
    named = [(name, torch.isfinite(tensor).all()) for name, tensor in tensors]
    if _all([fine for _, fine in named]):
        return ""
    return next(name for name, fine in named if not bool(fine))


def _all(flags: list[torch.Tensor]) -> bool:
    """Whether all are true: the device is waited for once, not once for each."""
    return not flags or bool(torch.stack([flag.to(flags[0].device) for flag in flags]).all())


def why_not_step(optimizer: torch.optim.Optimizer, loss: float, norm: float) -> str:
    """What would not be a number if the step were made: "loss", "gradient", "weights", or "".

    Args:
        optimizer: With the gradients of the step; neither it nor its parameters are changed.
        loss: Of the whole step.
        norm: Of its gradient, before it is clipped.
    """
    if not math.isfinite(loss):
        return "loss"
    if not math.isfinite(norm):
        return "gradient"
    return "" if _stays_finite(optimizer) else "weights"


def _stays_finite(optimizer: torch.optim.Optimizer) -> bool:
    """Whether weights and moments are finite after the step, tried on copies.

    One parameter after the other: a copy of the whole model, its moments included, would take as
    much memory as training it. The optimizer must treat each parameter by itself, as AdamW does.
    """
    make: Any = type(optimizer)
    fine = []
    for group in optimizer.param_groups:
        options = {name: value for name, value in group.items() if name != "params"}
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            copy = parameter.detach().clone().requires_grad_()
            copy.grad = parameter.grad
            trial = make([{**options, "params": [copy]}])
            trial.state[copy] = {
                name: value.clone() if isinstance(value, torch.Tensor) else value
                for name, value in optimizer.state.get(parameter, {}).items()
            }
            try:
                trial.step()
            except RuntimeError as error:
                if _OVERFLOW not in str(error):
                    raise
                return False
            moments = [value for value in trial.state[copy].values() if torch.is_tensor(value)]
            fine += [torch.isfinite(value).all() for value in (copy.detach(), *moments)]
    return _all(fine)


def trained_tensors(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> Iterable[tuple[str, torch.Tensor]]:
    """All weights of a model, and all that its optimizer remembers of them, by name."""
    for name, parameter in model.named_parameters():
        yield name, parameter.detach()
        for kind, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, torch.Tensor):
                yield f"{name} ({kind})", value
