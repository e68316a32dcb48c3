"""Each token is compared at the temperature that it was sampled at, in loss, KL, entropy and metrics."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from odradek.trainer.engine.decode import Sampler, SampleRequest
from odradek.trainer.feed.rows import rows_of
from odradek.trainer.models import load_model
from odradek.trainer.step.logprobs import Targets, add_head
from odradek.trainer.step.losses import LossInputs, LossOptions, StepTotals, policy_loss
from tests.support.trainer.gradients import compute_in_the_weights_type, gradient_of, loss_of
from tests.support.trainer.hilo import HiLo
from tests.support.trainer.played_groups import group_of, play, prompt_of

pytestmark = pytest.mark.torch
WARMTH = (0.3, 0.7, 1.0, 1.7)


@pytest.fixture(scope="module")
def rows(groups):
    """Rows in each of which temperatures change from token to token, off-policy."""
    chance = np.random.default_rng(0)
    found = [row for group in groups for row in rows_of(group) if row.advantage][:16]
    made = []
    for row in found:
        warm = chance.choice(np.array(WARMTH, np.float32), len(row.ids))
        noise = np.where(row.mask, chance.normal(0, 0.3, len(row.ids)), 0).astype(np.float32)
        made.append(replace(row, temperatures=warm, logprobs=row.logprobs + noise))
    return made


def plain_terms(model, reference, rows):
    """The same, row by row, from logits that are divided token by token; and the mean entropy."""
    found = {"logprobs": [], "reference": [], "old_logprobs": [], "advantages": [], "row": []}
    entropy = []
    for index, row in enumerate(rows):
        ids = torch.tensor(row.ids)
        places = torch.tensor(row.mask).nonzero()[:, 0]
        warm = torch.tensor(row.temperatures)[places, None]
        for name, one in (("logprobs", model), ("reference", reference)):
            logits = one(input_ids=ids[None]).logits[0, places - 1] / warm
            chosen = logits.log_softmax(-1)
            found[name].append(chosen.gather(1, ids[places, None])[:, 0])
            if name == "logprobs":
                entropy.append(-(chosen.exp() * chosen).sum(-1).detach())
        found["old_logprobs"].append(torch.tensor(row.logprobs)[places])
        found["advantages"].append(torch.full((len(places),), row.advantage))
        found["row"].append(torch.full((len(places),), index))
    joined = {name: torch.cat(values) for name, values in found.items()}
    joined["reference"] = joined["reference"].detach()
    return LossInputs(n_rows=len(rows), **joined), torch.cat(entropy)


SHAPE = {"kl": 0.1, "epsilon_low": 0.2, "epsilon_high": 0.28}
NAMES = ("dapo", "grpo", "dr_grpo", "gspo", "cispo")


def plain_gradient(tiny, rows, loss, dtype):
    """Loss, mean entropy and gradient of the plain line."""
    model, reference = (load_model(tiny).to(dtype) for _ in range(2))
    terms, entropy = plain_terms(model, reference, rows)
    value = policy_loss(loss, terms, StepTotals(len(terms.row), len(rows)), LossOptions(**SHAPE))
    value.backward()
    return value.item(), entropy.mean().item(), gradient_of(model).double()


def our_gradient(made, rows, dtype):
    """The same of a trainer: rows share positions, and one row holds all four temperatures."""
    assert 4 == len(set(np.concatenate([row.temperatures[row.mask] for row in rows]).tolist()))
    trainer = made.trainer
    trainer.model.to(dtype)
    trainer._reference.to(dtype)
    value = loss_of(trainer, rows)
    entropy = trainer.measured._sums["entropy"] / trainer.measured._sums["sampled"]
    return value, entropy, gradient_of(trainer.model).double()


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-13), (torch.float32, 1e-6)])
@pytest.mark.parametrize("loss", NAMES)
def test_each_tokens_own_temperature_is_exact(rows, tiny, bench, monkeypatch, loss, dtype, bound):
    """Packed, split over temperatures and put together again, the gradient is a plain line's.

    In float64 to 2e-15, so nothing of ours is an approximation; in float32 to 6e-7, KL included.
    """
    compute_in_the_weights_type(monkeypatch)
    value, entropy, plain = plain_gradient(tiny, rows, loss, torch.float64)
    made = bench([], rows_per_step=16, micro_tokens=200, loss=loss, **SHAPE)
    total, found, ours = our_gradient(made, rows, dtype)
    assert bound > abs(value - total)
    assert bound * plain.norm() > (ours - plain).norm()
    if dtype is torch.float64:  # a sum over tokens of what the metrics take as float32
        assert entropy == pytest.approx(found, rel=1e-6)


@pytest.mark.parametrize("loss", NAMES)
def test_a_packed_row_of_many_temperatures_has_the_gradient_of_a_plain_line(
    rows, tiny, bench, loss
):
    """As it is run: loss within 1e-7, gradients within what TRL's kernel rounds (2.6e-6 seen).

    It has p as exp(z / T - log Z) in float32, so what z / T rounds at T = 0.3 is an error of p.
    """
    value, entropy, plain = plain_gradient(tiny, rows, loss, torch.float64)
    made = bench([], rows_per_step=16, micro_tokens=200, loss=loss, **SHAPE)
    total, found, ours = our_gradient(made, rows, torch.float32)
    assert 1e-7 > abs(value - total)
    assert 3e-6 * plain.norm() > (ours - plain).norm()
    assert entropy == pytest.approx(found, rel=1e-5)


@pytest.mark.parametrize("temperatures", [(0.7,), (0.3, 1.0), (1.5,)])
def test_what_was_sampled_at_another_temperature_is_on_policy(tiny, tokenizer, bench, temperatures):
    """Ratio 1 and no clipping in the first step; taken for 1.0, it would be neither."""
    sampler = Sampler(
        load_model(tiny), pad_id=tokenizer.pad_token_id, end_ids=[tokenizer.eos_token_id], seed=0
    )
    told, untold = [], []
    for n in range(8):
        games = played(sampler, tokenizer, [1 + n % 3] * 8, temperatures)
        told.append(group_of(games, offset=n, version=1, temperatures=temperatures))
        untold.append(group_of(games, offset=n, version=1))
    one, other = (
        step_of(bench(groups, max_steps=1, name=name))
        for name, groups in (("a", told), ("b", untold))
    )
    assert 1 == pytest.approx(one["ratio_mean"], abs=1e-5)
    assert 1e-4 > one["mismatch_max"]
    assert (0, 0) == (one["clip_low"], one["clip_high"])
    assert 0.05 < other["mismatch_max"]


def played(sampler, tokenizer, secrets, temperatures):
    """Games whose n-th turn is sampled at the n-th temperature."""
    if len(temperatures) == 1:
        return play(sampler, tokenizer, secrets, temperature=temperatures[0])
    games = [(HiLo(secret), []) for secret in secrets]
    for temperature in temperatures:
        for game, turns in (entry for entry in games if not entry[0].over):
            ids = prompt_of(tokenizer, game.messages)
            (sampled,) = sampler.sample([SampleRequest(ids, temperature, 8)])
            turns.append((ids, sampled))
            game.answer(tokenizer.decode(sampled.ids, skip_special_tokens=True))
    return games


def step_of(made):
    made.trainer.run()
    (step,) = [step for step in made.announced.steps if step.optimized]
    return step.metrics


@pytest.mark.parametrize("kind", ["plain", "scaled", "capped", "biased"])
def test_the_head_is_exact_whatever_it_does_to_logits(tiny, kind):
    """Dividing the hidden states would be wrong behind a cap or a bias."""
    torch.manual_seed(0)
    model = load_model(tiny)
    weight = model.get_output_embeddings().weight
    bias = torch.zeros(weight.shape[0])
    cap, scale = None, 1.0
    if kind == "capped":
        cap = model.config.final_logit_softcapping = 5.0
    if kind == "scaled":
        scale = model.config.logit_scale = 0.25
    if kind == "biased":
        bias = torch.randn(weight.shape[0])
        head = torch.nn.Linear(*reversed(weight.shape))
        head.weight, head.bias = weight, torch.nn.Parameter(bias.clone())
        model.set_output_embeddings(head)
    add_head(model)
    ids = torch.randint(0, 90, (12,))
    warm = torch.tensor([0.3, 0.7, 0.7, 1.7, 1.0])
    at = torch.tensor([3, 3, 5, 5, 10])
    labels = ids[at + 1]
    hidden = model.base_model(input_ids=ids[None]).last_hidden_state[0]
    logits = (hidden[at] @ weight.T + bias) * scale
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    expected = (logits / warm[:, None]).log_softmax(-1)
    found = model(input_ids=ids[None], targets=Targets(at, labels, warm))
    assert 1e-5 > (expected.gather(1, labels[:, None])[:, 0] - found.logprobs).abs().max()
    assert 1e-5 > (-(expected.exp() * expected).sum(-1) - found.entropy).abs().max()


def test_a_model_with_a_head_of_ours_is_called_as_before_without_targets(tiny):
    """Generation, and the loss of others."""
    bare = load_model(tiny)
    model = copy.deepcopy(bare)
    add_head(model)
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(bare(input_ids=ids).logits, model(input_ids=ids).logits)


def test_entropy_has_a_gradient_where_the_head_is_asked_for_it_and_else_none(tiny):
    """That of the plain softmax, at each token's own temperature, within 5e-6 of its norm."""
    bare = load_model(tiny)
    asked, silent = copy.deepcopy(bare), copy.deepcopy(bare)
    add_head(asked, entropy_gradient=True)
    add_head(silent)
    ids = torch.randint(0, 90, (12,), generator=torch.Generator().manual_seed(0))
    warm, at = torch.tensor([0.3, 0.7, 0.7, 1.7, 1.0]), torch.tensor([3, 3, 5, 5, 10])
    targets = Targets(at, ids[at + 1], warm)
    logits = bare(input_ids=ids[None]).logits[0][at] / warm[:, None]
    expected = logits.log_softmax(-1)
    (-(expected.exp() * expected).sum()).backward()
    asked(input_ids=ids[None], targets=targets).entropy.sum().backward()
    wanted, found = gradient_of(bare), gradient_of(asked)
    assert (wanted - found).norm() <= 5e-6 * wanted.norm()
    assert not silent(input_ids=ids[None], targets=targets).entropy.requires_grad
