"""TRL's own losses and RLOO advantages, on log probabilities that no model has computed."""

from collections import defaultdict
from types import MethodType, SimpleNamespace
from typing import Any

import torch
from trl.experimental.gmpo.gmpo_trainer import GMPOTrainer
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_trainer import RLOOTrainer

from tests.support.trainer.plain_losses import (
    CAP,
    DUAL,
    FLOOR,
    HIGH,
    LENGTH,
    LOW,
    PlainRow,
)  # fmt: skip

ACCELERATOR = SimpleNamespace(
    num_processes=1,
    gather=lambda values: values,
    gather_for_metrics=lambda values: values,
    reduce=lambda values, **_: values,
    pad_across_processes=lambda values, **_: values,
    sync_gradients=True,
)
MODES = {
    "token_truncate": (False, False), "token_mask": (False, True),
    "sequence_truncate": (True, False), "sequence_mask": (True, True),
}  # fmt: skip


def padded(values: list[torch.Tensor]) -> torch.Tensor:
    """Rows side by side, shape (rows, longest)."""
    return torch.nn.utils.rnn.pad_sequence(values, batch_first=True)


def trl_loss(combination: Any, rows: list[PlainRow], *, kl: float = 0.3) -> torch.Tensor:
    """What TRL's trainer for a loss makes of a batch."""
    loss, terms, form = combination.loss, combination.terms, combination.kl_form
    kind: Any = {"gmpo": GMPOTrainer, "rloo": RLOOTrainer}.get(loss, GRPOTrainer)
    new, entropies = padded([r.new for r in rows]), padded([r.entropy for r in rows])
    mask = padded([torch.ones_like(r.new) for r in rows])
    before = padded([r.near if combination.correction else r.old for r in rows])
    inputs = {
        "prompt_ids": torch.zeros(len(rows), 1), "prompt_mask": torch.ones(len(rows), 1),
        "completion_ids": mask, "completion_mask": mask,
        "advantages": torch.stack([r.worth[0] for r in rows]),
        "old_per_token_logps": before, "old_logps": (before * mask).sum(1),
        "ref_per_token_logps": padded([r.reference for r in rows]),
        "num_items_in_batch": mask.sum(),
    }  # fmt: skip
    if combination.correction:
        whole, masked = MODES[combination.correction]
        difference = (padded([r.near for r in rows]) - padded([r.old for r in rows])) * mask
        ratio = (difference.sum(-1, keepdim=True) if whole else difference).exp()
        beyond = (ratio < FLOOR) | (ratio > CAP)
        inputs["importance_sampling_ratio"] = (
            ratio.masked_fill(beyond, 0.0) if masked else ratio.clamp(FLOOR, CAP)
        )
    by_row = loss in {"gspo", "luspo"}
    made = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (new, entropies, None),
        model=SimpleNamespace(training=True), accelerator=ACCELERATOR,
        args=SimpleNamespace(
            use_bias_correction_kl=form.endswith("weighted"),
            delta=DUAL if "dual_clip" in terms else None,
            sapo_temperature_pos=torch.tensor(1.0, dtype=torch.float64),
            sapo_temperature_neg=torch.tensor(1.05, dtype=torch.float64), steps_per_generation=1,
        ),
        loss_type={"gspo": "grpo"}.get(loss, loss),
        importance_sampling_level="sequence" if by_row else "token",
        epsilon_low=LOW, epsilon_high=1 + HIGH if loss == "cispo" else HIGH,
        beta=kl if form else 0.0, off_policy_mask_threshold=None,
        top_entropy_quantile=0.4 if "top_entropy" in terms else 1.0,
        use_vllm=bool(combination.correction), vllm_importance_sampling_correction=True,
        current_gradient_accumulation_steps=1, max_completion_length=LENGTH,
        aux_loss_enabled=False, use_adaptive_entropy=False, entropy_coef=0.05,
        _entropy_bonus_enabled="entropy" in terms,
        _metrics=defaultdict(lambda: defaultdict(list)),
    )  # fmt: skip
    made.get_high_entropy_mask = MethodType(GRPOTrainer.get_high_entropy_mask, made)
    return kind._compute_loss(made, made.model, inputs)


def trl_rloo_advantages(
    rewards: torch.Tensor, old: list[torch.Tensor], reference: list[torch.Tensor], *, kl: float
) -> torch.Tensor:
    """What TRL's RLOOTrainer makes of groups of rewards, shape (groups, samples), with KL in them.

    One advantage for each sample, shape (groups * samples,); `old` and `reference` are the log
    probabilities of its tokens under the policy that sampled it and under the reference.
    """
    policy, frozen = SimpleNamespace(training=True, is_gradient_checkpointing=False), object()
    made = SimpleNamespace(
        accelerator=SimpleNamespace(
            device=torch.device("cpu"), process_index=0, reduce=lambda values, **_: values
        ),
        model=policy, ref_model=frozen, beta=kl, num_generations=rewards.shape[1],
        args=SimpleNamespace(per_device_train_batch_size=8, gradient_checkpointing_kwargs=None),
        _tokenizer=SimpleNamespace(pad_token_id=0), pad_to_multiple_of=None,
        _generate=lambda prompts: ([[1]] * len(prompts), [[2] * len(row) for row in old], prompts),
        _get_per_token_logps_and_entropies=lambda model, *_, **__: (
            padded(old if model is policy else reference), None, None
        ),
        _calculate_rewards=lambda *_: rewards.reshape(-1, 1),
        reward_weights=torch.ones(1), reward_func_names=["judge"], reward_clip_range=None,
        mask_truncated_completions=False, normalize_advantages=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
        _logs={"prompt": [], "completion": [], "advantages": [], "rewards": {"judge": []}},
        _pending_extra_logs={}, _pending_metrics={},
    )  # fmt: skip
    prompts: Any = [{"prompt": "p"}] * len(old)
    trainer: Any = RLOOTrainer
    advantages: torch.Tensor = trainer._generate_and_score_completions(made, prompts)["advantages"]
    return advantages
