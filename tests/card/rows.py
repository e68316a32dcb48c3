"""Part c: long rows with activations computed twice, and a step that meets the end of memory."""

import torch

from tests.card.clock import MB, Clock
from tests.card.own_step import BUDGET, OwnStep, flat, long_rows

COUNT = 2
"""Long rows of a pass."""
MANY = 8
"""Rows of the step that does not fit."""
SHARE = 0.6
"""Of what a pass of all rows takes, as much is left to it."""


def long(device, sizes, length: int) -> dict:
    """Rows of one length, in one pass."""
    rows = long_rows(length, COUNT)
    model = sizes.model.made(length, device)
    step = OwnStep(model, bf16=True, checkpointed=True, budget=COUNT * length)
    step.gradient.compute(rows)
    clock = Clock(device)
    with clock.block():
        step.gradient.compute(rows)
    return clock.rate(sum(len(row.ids) for row in rows))


def capped(device, sizes, length: int) -> dict:
    """A step of which one pass does not fit: the budget is halved, the gradient is the same."""
    rows = long_rows(length, MANY)
    model = sizes.model.made(length, device)
    step = OwnStep(model, bf16=True, checkpointed=True, budget=MANY * max(length, BUDGET))
    clock = Clock(device)
    with clock.block():
        step.gradient.compute(rows)
    whole, asked = flat(model), step.gradient.budget.learned
    model.zero_grad(set_to_none=True)
    passes = []
    step.seen = passes.append
    if device.type == "cuda":
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(device).total_memory
        room = torch.cuda.memory_allocated() + SHARE * (clock.peak_mb or 0.0) * MB
        torch.cuda.set_per_process_memory_fraction(min(room / total, 1.0))
    else:
        step.seen = lambda tokens: passes.append(tokens) or scarce(tokens, asked=passes[0])
    unfit = step.gradient.compute(rows)
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(1.0)
    parts = flat(model)
    return {
        "budget_asked": asked,
        "budget_learned": step.gradient.budget.learned,
        "tokens_of_passes": passes,
        "unfit": len(unfit),
        "gradient_off": float((parts - whole).norm() / whole.norm()),
        "injected": "a cap on the card's memory" if device.type == "cuda" else "a planted error",
    }


def scarce(tokens: int, asked: int) -> None:
    """Memory for half of the first pass, where no card has an end of it."""
    if tokens > asked // 2 + 1:
        raise MemoryError("planted")


def measure(device, sizes):
    """(name, figures) of each length, then of the step that does not fit."""
    torch.set_float32_matmul_precision("highest")
    for length in sizes.rows:
        yield f"rows of {length}", long(device, sizes, length)
    yield "out of memory", capped(device, sizes, sizes.rows[0])
