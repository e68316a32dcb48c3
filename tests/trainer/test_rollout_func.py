"""TRL's synchronous trainer over the bus, with a deploy that plays in process."""

import json

import pytest
import torch
from datasets import Dataset
from plays import group_of, play
from trl import GRPOConfig, GRPOTrainer

import odradek.trainer
from odradek.infra.client import Result
from odradek.schemas.events import parsed
from odradek.trainer.weights.directory import DirectoryTransfer
from odradek.trainer.weights.engines import Engines

pytestmark = pytest.mark.torch


def test_a_few_steps_of_plain_grpo_over_the_bus(sampler, tokenizer, tiny, tmp_path):
    """Rows in order, a failed sample masked, weights pushed after each step."""
    calls = []

    async def deploy(tasks, timeout):
        calls.append([parsed(task.input)["secret"] for task in tasks])
        games = play(sampler, tokenizer, calls[-1])
        group = group_of(games, offset=len(calls), version=1)
        results = [
            Result(task_id=task.task_id, episodes=(episode,), outcome="completed")
            for task, (_, episode) in zip(tasks, group.episodes, strict=True)
        ]
        results[1] = Result(task_id=tasks[1].task_id, outcome="failed", error="broke")
        return results

    transfer = DirectoryTransfer(tmp_path / "w", Engines([]), config=None, keep=9)
    rollouts = odradek.trainer.rollout_func("hilo", transfer=transfer, deploy=deploy)
    prompts = [json.dumps({"secret": secret}) for secret in (1, 2, 3, 1, 2, 3)]
    trainer = GRPOTrainer(
        model=str(tiny),
        reward_funcs=odradek.trainer.reward_of,
        rollout_func=rollouts,
        args=GRPOConfig(
            output_dir=str(tmp_path / "out"), use_cpu=True, bf16=False, report_to="none",
            num_generations=4, per_device_train_batch_size=4, max_steps=3, learning_rate=1e-3,
            save_strategy="no", disable_tqdm=True, gradient_checkpointing=False, beta=0.0,
            logging_strategy="no",
        ),
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        processing_class=tokenizer,
    )  # fmt: skip
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    trainer.train()
    assert 3 == len(calls)
    assert all(len(call) == 4 and len(set(call)) == 1 for call in calls)
    assert {"failed": 3, "several": 0} == rollouts.counts
    assert 3 == transfer.version
    assert any(not torch.equal(p, before[n]) for n, p in trainer.model.named_parameters())


def test_of_several_sequences_the_longest_is_kept_with_a_warning(sampler, tokenizer):
    """A broken history cannot be one row; it is said and counted."""
    import msgspec

    games = play(sampler, tokenizer, [1])
    episode = group_of(games, offset=0, version=1).episodes[0][1]
    (sequence,) = episode.sequences
    short = msgspec.structs.replace(
        sequence, ids=sequence.ids[: 4 * sequence.spans[0].end], spans=sequence.spans[:1],
        logprobs=sequence.logprobs[: 4 * (sequence.spans[0].end - sequence.spans[0].start)],
        versions=(),
    )  # fmt: skip
    longer = msgspec.structs.replace(sequence, ids=sequence.ids + b"\7\0\0\0")
    rollouts = odradek.trainer.rollout_func("hilo")
    with pytest.warns(UserWarning, match="the longest is kept"):
        row = rollouts._sampled(msgspec.structs.replace(episode, sequences=(short, longer)))
    assert 1 == rollouts.counts["several"]
    assert len(longer.ids) // 4 == len(row["prompt_ids"]) + len(row["completion_ids"])
    assert len(row["env_mask"]) == len(row["completion_ids"]) == len(row["logprobs"])
    assert (1, 0) == (row["env_mask"][0], row["env_mask"][-1])
