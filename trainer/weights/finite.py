"""Whether an optimizer step may be made: no infinite or NaN value may reach the weights.

Adam's moments remember: one infinite gradient makes its weight useless for ever, and weights that
are no numbers make everything so. So a step is looked at before it is made, not undone afterwards:
its loss, the norm of its gradient, and what the optimizer would make of them.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import torch
from torch.nn.utils import get_total_norm

TOGETHER: Final = 1 << 24
"""Elements of parameters that are tried together, where each is smaller."""
_OVERFLOW: Final = "without overflow"
"""What torch says of a learning rate that the weights' type cannot hold."""


def non_finite(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """The name of the first tensor that holds something infinite or no number, or ""."""
    named = list(tensors)
    if _finite([tensor for _, tensor in named]):
        return ""
    return next(name for name, tensor in named if not _finite([tensor]))


def _finite(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether all are numbers, by their norm: so a device is waited for only once."""
    floats = [tensor for tensor in tensors if tensor.is_floating_point() and tensor.numel()]
    return not floats or bool(torch.isfinite(get_total_norm(floats, math.inf)))


def why_not_step(optimizer: torch.optim.Optimizer, loss: float, norm: float) -> str:
    """The first of "loss", "gradient" and "weights" that the step would make non-finite, or "".

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

    A few parameters after the others: a copy of the whole model, its moments included, would take
    as much memory as training it. The optimizer must treat each by itself, as AdamW does.
    """
    make: Any = type(optimizer)
    for group in optimizer.param_groups:
        options = {name: value for name, value in group.items() if name != "params"}
        for parameters in _portions(group["params"]):
            copies = [parameter.detach().clone().requires_grad_() for parameter in parameters]
            trial = make([{**options, "params": copies}])
            for copy, parameter in zip(copies, parameters, strict=True):
                copy.grad = parameter.grad
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
            moments = [value for copy in copies for _, value in _moments(trial, copy)]
            if not _finite([*(copy.detach() for copy in copies), *moments]):
                return False
    return True


def _portions(parameters: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Parameters with a gradient, TOGETHER elements at a time, or one that is larger."""
    portion: list[torch.Tensor] = []
    elements = 0
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if portion and elements + parameter.numel() > TOGETHER:
            yield portion
            portion, elements = [], 0
        portion.append(parameter)
        elements += parameter.numel()
    if portion:
        yield portion


def _moments(
    optimizer: torch.optim.Optimizer, parameter: torch.Tensor
) -> Iterator[tuple[str, torch.Tensor]]:
    """What an optimizer remembers of each element of a parameter; not how often it has stepped."""
    for name, value in optimizer.state.get(parameter, {}).items():
        if isinstance(value, torch.Tensor) and value.shape == parameter.shape and name != "step":
            yield name, value


def trained_tensors(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> Iterator[tuple[str, torch.Tensor]]:
    """All weights of a model, and all that its optimizer remembers of them, by name."""
    for name, parameter in model.named_parameters():
        yield name, parameter.detach()
        for kind, value in _moments(optimizer, parameter):
            yield f"{name} ({kind})", value
