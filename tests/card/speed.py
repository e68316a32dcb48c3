"""Part b: tokens a second of a step, by TRL's GRPOTrainer and by ours, on the same group."""

import tempfile

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from odradek.trainer.engine.tiny import tokenizer
from odradek.trainer.feed.rows import per_turn, tokens
from tests.card.clock import Clock
from tests.card.own_step import OwnStep, apart, batch

PRECISIONS = ("bf16", "tf32", "fp32")
MICRO = 8
"""Rows of a micro-batch of TRL's."""


def precise(precision: str) -> None:
    """What products of float32 matrices are taken in."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")


def ours(device, sizes, precision: str, rows, counted: int) -> dict:
    """Our step; tokens are counted as single turns."""
    model = sizes.model.made(2 * len(rows[0].ids), device)
    step = OwnStep(model, bf16=precision == "bf16", checkpointed=True)
    step.gradient.compute(rows)  # kernels are compiled
    model.zero_grad(set_to_none=False)
    clock = Clock(device)
    for _ in range(sizes.repeats):
        with clock.block():
            step.gradient.compute(rows)
    return clock.rate(counted * sizes.repeats)


def rollouts_of(rows):
    """What TRL calls a rollout_func: these rows, whatever it is asked."""

    def rollouts(prompts, trainer):
        del trainer
        assert len(prompts) == len(rows)
        starts = [int(row.mask.argmax()) for row in rows]
        return {
            "prompt_ids": [r.ids[:n].tolist() for r, n in zip(rows, starts, strict=True)],
            "completion_ids": [r.ids[n:].tolist() for r, n in zip(rows, starts, strict=True)],
            "logprobs": [r.logprobs[n:].tolist() for r, n in zip(rows, starts, strict=True)],
            "env_mask": [
                r.mask[n:].astype(int).tolist() for r, n in zip(rows, starts, strict=True)
            ],
        }

    return rollouts


class TimedGRPO(GRPOTrainer):
    """TRL's trainer with a clock around forward and backward, and none around the rest."""

    clock: Clock

    def compute_loss(self, *args, **kwargs):
        with self.clock.block():
            loss = super().compute_loss(*args, **kwargs)
        backward = self.accelerator.backward

        def timed(*args, **kwargs):
            with self.clock.block():
                backward(*args, **kwargs)
            self.accelerator.backward = backward

        self.accelerator.backward = timed
        return loss


class ForgetFirst(TrainerCallback):
    """Forgets the first step, in which kernels are chosen."""

    def __init__(self, trainer, device) -> None:
        self._trainer, self._device = trainer, device

    def on_step_end(self, args, state, control, **_):
        if state.global_step == 1:
            self._trainer.clock = Clock(self._device)


def trls(device, sizes, precision: str, rows, counted: int) -> dict:
    """TRL's step: padded rows, its own attention, checkpointing; of `repeats` + 1 the first is left out."""
    model = sizes.model.made(2 * max(len(row.ids) for row in rows), device)
    micro = min(MICRO, len(rows))
    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder, use_cpu=device.type == "cpu", bf16=precision == "bf16",
            report_to="none", num_generations=len(rows), per_device_train_batch_size=micro,
            gradient_accumulation_steps=len(rows) // micro, max_steps=sizes.repeats + 1,
            max_completion_length=len(rows[-1].ids), save_strategy="no", disable_tqdm=True,
            gradient_checkpointing=True, beta=0.0, logging_strategy="no", learning_rate=1e-6,
        )  # fmt: skip
        trainer = TimedGRPO(
            model=model,
            reward_funcs=lambda completions, **_: [float(n % 2) for n in range(len(completions))],
            rollout_func=rollouts_of(rows),
            args=config,
            train_dataset=Dataset.from_dict({"prompt": ["go"] * 8}),
            processing_class=tokenizer(),
        )
        trainer.clock = Clock(device)
        trainer.add_callback(ForgetFirst(trainer, device))
        trainer.train()
    return trainer.clock.rate(counted * sizes.repeats)


def measure(device, sizes):
    """(name, figures) of each way and precision, those that matter most first."""
    rows = batch(sizes)
    singles = [single for row in rows for single in per_turn(row)]
    counted = tokens(singles)
    ways = {
        "ours, tree": lambda p: ours(device, sizes, p, batch(sizes), counted),
        "ours, packed": lambda p: ours(device, sizes, p, apart(batch(sizes)), counted),
        "TRL, padded, merged": lambda p: trls(device, sizes, p, rows, counted),
        "TRL, padded, per turn": lambda p: trls(device, sizes, p, singles, counted),
    }
    for precision in PRECISIONS:
        if precision == "tf32" and device.type == "cpu":
            continue
        precise(precision)
        for name, way in ways.items():
            yield f"{name}, {precision}", way(precision)
            if device.type == "cuda":
                torch.cuda.empty_cache()
