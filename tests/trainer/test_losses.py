"""Losses against plain padded torch, packed training against TRL, engine against trainer."""

import sys

import pytest
import torch

from odradek.trainer.engine.decode import SampleRequest
from odradek.trainer.feed.rows import rows_of
from odradek.trainer.loss_table import LOSSES
from odradek.trainer.recipes import Combination
from odradek.trainer.step.losses import LossInputs, LossOptions, StepTotals, policy_loss
from odradek.trainer.step.metrics import RowFacts, StepMetrics
from tests.support.trainer.plain_losses import PlainRow, plain_loss
from tests.support.trainer.played_groups import prompt_of

pytestmark = pytest.mark.torch

LENGTHS = (5, 1, 9, 3)


def case(seed=0):
    """Four rows of unequal length, off-policy."""
    generator = torch.Generator().manual_seed(seed)
    n = sum(LENGTHS)
    old = -torch.rand(n, generator=generator)
    new = (old + 0.4 * torch.randn(n, generator=generator)).requires_grad_()
    row = torch.repeat_interleave(torch.arange(4), torch.tensor(LENGTHS))
    worth = torch.tensor([1.2, -0.7, 0.4, -1.0])
    reference = old + 0.1 * torch.randn(n, generator=generator)
    return new, old, row, worth, reference


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_is_its_plain_line_and_so_is_its_gradient(name):
    """Packed terms give what a loop over rows in plain torch gives."""
    new, old, row, worth, _ = case()
    parts = zip(new.split(LENGTHS), old.split(LENGTHS), worth[row].split(LENGTHS), strict=True)
    rows = [PlainRow(n, o, o, o, o, a) for n, o, a in parts]
    expected = plain_loss(Combination(name, "mean"), rows)
    (wanted,) = torch.autograd.grad(expected, new)
    terms = LossInputs(new, old, worth[row], row, 4)
    found = policy_loss(name, terms, StepTotals(len(old), 4), LossOptions(0.2, 0.28))
    (gradient,) = torch.autograd.grad(found, new)
    assert expected.item() == pytest.approx(found.item(), rel=1e-6)
    assert (wanted - gradient).norm() <= 2e-6 * wanted.norm()


@pytest.mark.parametrize("name", LOSSES)
def test_micro_batches_add_up_to_the_step(name):
    """Rows cut into unequal micro-batches weigh what they weigh together."""
    new, old, row, worth, _ = case(1)
    whole, shape = StepTotals(len(old), 4), LossOptions()
    together = policy_loss(name, LossInputs(new, old, worth[row], row, 4), whole, shape)
    cut = sum(LENGTHS[:1])
    first = LossInputs(new[:cut], old[:cut], worth[row[:cut]], row[:cut], 1)
    rest = LossInputs(new[cut:], old[cut:], worth[row[cut:]], row[cut:] - 1, 3)
    apart = policy_loss(name, first, whole, shape) + policy_loss(name, rest, whole, shape)
    assert together.item() == pytest.approx(apart.item(), abs=1e-6)


def test_kl_is_zero_at_the_reference_and_positive_elsewhere():
    """k3, weighted into the loss."""
    new, old, row, _worth, reference = case()
    nothing = torch.zeros(len(old))
    whole, shape = StepTotals(len(old), 4), LossOptions(kl=1.0)
    at = policy_loss(
        "dapo", LossInputs(new, new.detach(), nothing, row, 4, new.detach()), whole, shape
    )
    off = policy_loss(
        "dapo", LossInputs(new, new.detach(), nothing, row, 4, reference), whole, shape
    )
    d = reference - new
    assert at.item() == pytest.approx(0, abs=1e-7)
    assert ((d.exp() - d - 1).sum() / len(old)).item() == pytest.approx(off.item(), abs=1e-6)


def test_truncated_importance_sampling_caps_the_weight_and_starts_from_ratio_one():
    """L = -min(p/q, C) A at ratio 1, token mean."""
    new, old, row, worth, _ = case()
    terms = LossInputs(new, old, worth[row], row, 4)
    found = policy_loss("dapo", terms, StepTotals(len(old), 4), LossOptions(tis=1.1))
    expected = -((new - old).exp().clamp(max=1.1) * worth[row]).mean()
    assert expected.item() == pytest.approx(found.item(), abs=1e-6)


@pytest.mark.parametrize("bound", [1e10, 1e38, 3.5e38, 1e200, sys.float_info.max, 10**30])
@pytest.mark.parametrize("field", ["epsilon_high", "tis"])
@pytest.mark.parametrize("name", LOSSES)
def test_a_bound_that_no_ratio_reaches_is_none_however_large(name, field, bound):
    """Torch refuses what float32 cannot hold; ratios end at e^20, which one token has here."""
    new, old, row, worth, _ = case()
    old = old.clone()
    old[0] -= 40
    terms = LossInputs(new, old, worth[row], row, 4, proximal=old + 0.1)

    def stepped(limit):
        shape = LossOptions(**{"epsilon_high": 0.28, field: limit})
        loss = policy_loss(name, terms, StepTotals(len(old), 4), shape)
        (gradient,) = torch.autograd.grad(loss, new)
        metrics = StepMetrics(name)
        facts = RowFacts(torch.zeros(4), torch.ones(4), 9)
        metrics.add(terms, loss, torch.zeros(len(old)), facts, shape)
        return gradient, metrics._sums

    expected, found = stepped(1e9), stepped(bound)
    assert torch.isfinite(expected[0]).all()
    assert torch.equal(expected[0], found[0])
    assert expected[1] == found[1]


def test_the_engine_and_a_forward_pass_on_merged_rows_agree(groups, sampler):
    """Number 2: fp32 log probabilities within 1e-4, k3 below 1e-8."""
    worst, k3, n = 0.0, 0.0, 0
    for group in groups[:6]:
        for row in rows_of(group):
            with torch.inference_mode():
                logits = sampler.model(input_ids=torch.tensor(row.ids)[None]).logits[0, :-1]
            told = torch.tensor(row.logprobs)[1:][torch.tensor(row.mask[1:])]
            mine = logits.log_softmax(-1).gather(1, torch.tensor(row.ids)[1:, None])[:, 0]
            distance = mine[torch.tensor(row.mask[1:])] - told
            worst = max(worst, distance.abs().max().item())
            k3 += (distance.exp() - 1 - distance).sum().item()
            n += len(distance)
    assert worst < 1e-4
    assert abs(k3 / n) < 1e-8


def test_greedy_takes_the_likeliest_and_company_changes_nothing(sampler, tokenizer):
    """A row's tokens do not depend on who shares its batch."""
    short = prompt_of(tokenizer, [{"role": "user", "content": "Guess"}])
    long = prompt_of(tokenizer, [{"role": "user", "content": "Guess a number from 1 to 3."}])
    (alone,) = sampler.sample([SampleRequest(short, 0.0, 6)])
    together = sampler.sample(
        [SampleRequest(long, 1.0, 6), SampleRequest(short, 0.0, 6), SampleRequest(long, 0.0, 2)]
    )
    assert alone.ids == together[1].ids
    assert alone.logprobs == pytest.approx(together[1].logprobs, abs=1e-5)


def test_temperature_and_limit_are_each_rows_own(sampler, tokenizer):
    """The log probability is that of the distribution that was drawn from."""
    ids = prompt_of(tokenizer, [{"role": "user", "content": "Guess a number from 1 to 3."}])
    cold, hot = sampler.sample([SampleRequest(ids, 0.5, 1), SampleRequest(ids, 2.0, 1)])
    with torch.inference_mode():
        logits = sampler.model(input_ids=torch.tensor([ids])).logits[0, -1]
    for found, temperature in ((cold, 0.5), (hot, 2.0)):
        expected = (logits / temperature).log_softmax(-1)[found.ids[0]].item()
        assert expected == pytest.approx(found.logprobs[0], abs=1e-5)
        assert (1, "length") == (len(found.ids), found.finish_reason)


def test_long_replies_of_a_random_model_agree_with_a_forward_pass(tokenizer):
    """Positions, padding and rows that leave the batch early: every token within 1e-4."""
    from odradek.trainer.engine.decode import Sampler
    from odradek.trainer.engine.tiny import random_model

    model = random_model(1, tokenizer).eval()
    sampler = Sampler(model, pad_id=0, end_ids=[tokenizer.eos_token_id], seed=1)
    prompts = [list(range(5, 5 + n)) for n in (3, 17, 30)]
    limits = (24, 5, 16)
    found = sampler.sample(
        [SampleRequest(ids, 1.0, n) for ids, n in zip(prompts, limits, strict=True)]
    )
    for ids, sampled in zip(prompts, found, strict=True):
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids + sampled.ids])).logits[0, len(ids) - 1 : -1]
        expected = logits.log_softmax(-1).gather(1, torch.tensor(sampled.ids)[:, None])[:, 0]
        assert expected.tolist() == pytest.approx(sampled.logprobs, abs=1e-4)
    assert 5 == len(found[1].ids)
