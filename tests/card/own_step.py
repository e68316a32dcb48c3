"""The trainer's own step, without a log: plan, packed trees, head, loss and gradient."""

import contextlib

import numpy as np
import torch

from odradek.trainer.bench import batch_of
from odradek.trainer.plan.budget import TokenBudget
from odradek.trainer.step import attention
from odradek.trainer.step.gradient import StepGradient
from odradek.trainer.step.logprobs import add_head
from odradek.trainer.step.losses import LossInputs, LossOptions, policy_loss
from odradek.trainer.step.packing import tensors_of

BUDGET = 32_768


class OwnStep:
    """Gradients of steps of a model, as `LogTrainer` makes them."""

    def __init__(self, model, *, bf16: bool, checkpointed: bool, budget: int = BUDGET) -> None:
        attention.register()
        model.set_attn_implementation(attention.NAME)
        if checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        add_head(model)
        self.model = model.train()
        self.seen = lambda tokens: None
        """Called before each pass with its tokens."""
        self._bf16 = bf16
        self.gradient = StepGradient(
            TokenBudget.of(budget), self._backward, lambda: model.zero_grad(set_to_none=True)
        )

    def _backward(self, rows, totals) -> None:
        packed = tensors_of(rows, self.model.device)
        self.seen(len(packed.ids))
        kind = self.model.device.type
        bf16 = torch.autocast(kind, torch.bfloat16) if self._bf16 else contextlib.nullcontext()
        with bf16:
            scores = self.model(
                input_ids=packed.ids[None], position_ids=packed.positions[None],
                tree_mask=packed.mask, targets=packed.targets,
            )  # fmt: skip
        terms = LossInputs(
            scores.logprobs, packed.old_logprobs, packed.advantages, packed.row, len(packed.weights)
        )
        policy_loss("dapo", terms, totals, LossOptions()).backward()


def batch(sizes) -> list:
    """The rows of one group."""
    return batch_of(
        group=sizes.group, turns=sizes.turns, prompt=sizes.prompt, sampled=sizes.sampled,
        between=sizes.between,
    )  # fmt: skip


def apart(rows: list) -> list:
    """The same rows with nothing in common: each begins with another token."""
    for number, row in enumerate(rows):
        row.ids[0] = number
    return rows


def flat(model) -> torch.Tensor:
    """All gradients in one, on the CPU."""
    return torch.cat(
        [p.grad.float().flatten().cpu() for p in model.parameters() if p.grad is not None]
    )


def long_rows(length: int, count: int) -> list:
    """Rows that share a quarter, with a tenth sampled."""
    sampled = max(length // 40, 1)
    between = max((length - length // 4 - 4 * sampled) // 3, 1)
    made = batch_of(group=count, turns=4, prompt=length // 4, sampled=sampled, between=between)
    assert all(abs(len(row.ids) - length) < 8 for row in made), np.array([len(r.ids) for r in made])
    return made
