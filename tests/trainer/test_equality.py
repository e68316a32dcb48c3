"""Number 1: a padded line, TRL's GRPOTrainer and our packed trainer are one loss and one gradient."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from odradek.trainer.feed.cursor import Cursor
from odradek.trainer.feed.lineage import Lineage
from odradek.trainer.feed.rows import spans_of
from odradek.trainer.feed.rules import RowRules
from odradek.trainer.models import load_model
from tests.support.trainer.gradients import gradient_of, loss_of

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def rows(groups):
    """64 rows whose sampler was another policy: told log probabilities are shifted."""
    rules = RowRules(rows_per_step=64, max_staleness=1000)
    consumption = Cursor(rules, Lineage())
    found = [row for group in groups for row in consumption.feed(group)][:64]
    noise = np.random.default_rng(0)
    for row in found:
        row.logprobs[row.mask] += noise.normal(0, 0.3, row.sampled).astype(np.float32)
    assert len(found) == 64
    return found


def padded(rows, pad):
    """Prompts to the left, completions to the right, as TRL's synchronous trainer wants them."""
    firsts = [next(spans_of(row.mask))[0] for row in rows]
    left = max(firsts)
    right = max(len(row.ids) - first for row, first in zip(rows, firsts, strict=True))

    def put(values, first, dtype, fill):
        out = torch.full((left + right,), fill, dtype=dtype)
        out[left - first : left - first + len(values)] = torch.tensor(values, dtype=dtype)
        return out

    def all_of(get, dtype, fill=0):
        return torch.stack(
            [put(get(row), first, dtype, fill) for row, first in zip(rows, firsts, strict=True)]
        )

    ids = all_of(lambda row: row.ids, torch.long, pad)
    real = all_of(lambda row: np.ones(len(row.ids)), torch.long)
    mask = all_of(lambda row: row.mask, torch.long)
    old = all_of(lambda row: row.logprobs, torch.float32)
    worth = torch.tensor([row.advantage for row in rows], dtype=torch.float32)
    return left, ids, real, mask, old, worth


@pytest.mark.parametrize("weigh", ["row", "episode"])
def test_one_batch_of_64_off_policy_rows_has_one_loss_and_one_gradient(
    rows, tiny, tokenizer, bench, tmp_path, weigh
):
    """Whatever weighs the same, since each sample has one sequence.

    Loss within 1e-6, gradients within 2e-6 of the plain line, relatively (fp32; 1.1e-6 seen).
    """
    left, ids, real, mask, old, worth = padded(rows, tokenizer.pad_token_id)

    model = load_model(tiny)
    positions = (real.cumsum(1) - 1).clamp(0)
    logits = model(input_ids=ids, attention_mask=real, position_ids=positions).logits
    logprobs = logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
    ratio = (logprobs - old[:, 1:]).exp()
    a, m = worth[:, None], mask[:, 1:]
    plain = (-torch.min(ratio * a, ratio.clamp(0.8, 1.28) * a) * m).sum() / m.sum()
    plain.backward()
    plain_gradient = gradient_of(model)

    theirs = GRPOTrainer(
        model=load_model(tiny),
        reward_funcs=lambda **_: [0.0],
        args=GRPOConfig(
            output_dir=str(tmp_path / "trl"), loss_type="dapo", epsilon=0.2, epsilon_high=0.28,
            beta=0.0, use_cpu=True, bf16=False, report_to="none", num_generations=8,
            per_device_train_batch_size=64, gradient_checkpointing=False,
        ),
        train_dataset=Dataset.from_dict({"prompt": ["x"]}),
        processing_class=tokenizer,
    )  # fmt: skip
    theirs.current_gradient_accumulation_steps = 1
    theirs.model.train()
    loss = theirs._compute_loss(
        theirs.model,
        {
            "prompt_ids": ids[:, :left], "prompt_mask": real[:, :left],
            "completion_ids": ids[:, left:], "completion_mask": real[:, left:],
            "tool_mask": mask[:, left:], "old_per_token_logps": old[:, left:],
            "advantages": worth, "num_items_in_batch": mask.sum(),
        },
    )  # fmt: skip
    loss.backward()
    their_gradient = gradient_of(theirs.model)

    trainer = bench([], rows_per_step=64, micro_tokens=600, loss="dapo", weigh=weigh).trainer
    total = loss_of(trainer, rows)
    our_gradient = gradient_of(trainer.model)

    assert plain.item() == pytest.approx(loss.item(), abs=1e-6)
    assert plain.item() == pytest.approx(total, abs=1e-6)
    scale = plain_gradient.norm()
    assert (their_gradient - plain_gradient).norm() / scale < 2e-6
    assert (our_gradient - plain_gradient).norm() / scale < 2e-6
