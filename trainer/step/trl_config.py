"""TRL's configuration, made from ours. TRL does not decide what other parts decide."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch
from trl.experimental.async_grpo import AsyncGRPOConfig, async_grpo_trainer

from odradek.trainer.settings import TrainerSettings

OUT_OF_REACH: Final = 10**9
"""For bounds of TRL that we decide ourselves."""

SCHEDULES: Final = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
"""Ours: transformers' names; all of them rise from 0 over `warmup_steps`."""
OPTIMIZERS: Final = {
    "adamw": "adamw_torch_fused",
    "adamw_8bit": "adamw_8bit",
    "adamw_paged": "paged_adamw_32bit",
    "adamw_8bit_paged": "paged_adamw_8bit",
}
"""Ours: transformers' names."""


@contextmanager
def without_cuda(cpu: bool) -> Iterator[None]:
    """Let TRL's constructor, which asks the GPU for its peak speed, run on a CPU."""
    ask = async_grpo_trainer.get_peak_flops_per_device
    if cpu:
        async_grpo_trainer.get_peak_flops_per_device = lambda *_: None
    try:
        yield
    finally:
        async_grpo_trainer.get_peak_flops_per_device = ask


def on_cpu(settings: TrainerSettings) -> bool:
    """Whether a run with these settings trains on the CPU."""
    return settings.device == "cpu" or (settings.device == "auto" and not torch.cuda.is_available())


def config_of(settings: TrainerSettings) -> AsyncGRPOConfig:
    """TRL's configuration for these settings."""
    return AsyncGRPOConfig(
        output_dir=str(settings.output_dir),
        max_steps=settings.max_steps,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=1,  # a batch of our loader is a whole step
        learning_rate=settings.learning_rate,
        lr_scheduler_type=SCHEDULES[settings.schedule],
        warmup_steps=settings.warmup_steps,
        optim=OPTIMIZERS[settings.optimizer],
        weight_decay=settings.weight_decay,
        adam_beta2=settings.adam_beta2,
        max_grad_norm=settings.max_grad_norm,
        epsilon=settings.epsilon_low,
        epsilon_high=settings.epsilon_high,
        temperature=settings.temperature,
        router_aux_loss_coef=0.0,
        dtype="float32",
        bf16=False,
        gradient_checkpointing=settings.gradient_checkpointing > 0,
        gradient_checkpointing_kwargs={
            "use_reentrant": False,
            "every_n_layers": max(settings.gradient_checkpointing, 1),
        },
        use_cpu=on_cpu(settings),
        seed=settings.seed,
        save_strategy="no",  # checkpoints are ours: whole or not there
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        ignore_data_skip=True,
        token_budget=0,  # a fixed number of rows a step, so that a step is the same every time
        max_staleness=OUT_OF_REACH,
        weight_sync_steps=OUT_OF_REACH,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
