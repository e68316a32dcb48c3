"""With `tis` the clip is of the ratio to the policy of one step before, and is counted as it acts."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from odradek.trainer.commit import checkpoint
from odradek.trainer.errors import BrokenCheckpoint
from odradek.trainer.loss_table import LOSSES
from odradek.trainer.recipes import Combination
from odradek.trainer.saving.run_checkpoints import PROXIMAL
from odradek.trainer.saving.shards import write_tensors
from odradek.trainer.step.losses import (
    LossInputs,
    LossOptions,
    StepTotals,
    clips,
    policy_loss,
)
from odradek.trainer.step.proximal import ProximalPolicy
from tests.support.trainer.nan_gradients import spoil
from tests.support.trainer.plain_losses import PlainRow, plain_loss

pytestmark = pytest.mark.torch

FILE = f"{PROXIMAL}.safetensors"
LENGTHS = (5, 1, 9, 3)
CAP = 1.1


def case(seed=0):
    """Four rows under three policies: trained, proximal and sampling one."""
    random = torch.Generator().manual_seed(seed)
    n = sum(LENGTHS)
    old = -torch.rand(n, generator=random)
    near = old + 0.3 * torch.randn(n, generator=random)
    new = (near + 0.3 * torch.randn(n, generator=random)).requires_grad_()
    row = torch.repeat_interleave(torch.arange(4), torch.tensor(LENGTHS))
    worth = torch.tensor([1.2, -0.7, 0.4, -1.0])[row]
    return LossInputs(new, old, worth, row, 4, proximal=near)


def plain(name, terms, low, high):
    """Each loss over its rows, weighted by min(p'/q, C), with its ratio to p'."""
    assert (low, high) == (0.2, 0.28)
    parts = (terms.logprobs, terms.old_logprobs, terms.proximal, terms.advantages)
    split = zip(*(values.split(LENGTHS) for values in parts), strict=True)
    rows = [PlainRow(new, old, near, old, old, worth) for new, old, near, worth in split]
    return plain_loss(Combination(name, "mean", correction="token_truncate"), rows, bounds=(0, CAP))


def gradient(name, terms, shape):
    loss = policy_loss(name, terms, StepTotals(sum(LENGTHS), 4), shape)
    return torch.autograd.grad(loss, terms.logprobs)[0]


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_is_its_plain_line_with_the_ratio_to_the_proximal_policy(name):
    """Loss and gradient."""
    terms = case()
    expected = plain(name, terms, 0.2, 0.28)
    (wanted,) = torch.autograd.grad(expected, terms.logprobs)
    shape = LossOptions(0.2, 0.28, tis=CAP)
    found = policy_loss(name, terms, StepTotals(sum(LENGTHS), 4), shape)
    assert expected.item() == pytest.approx(found.item(), abs=1e-6)
    assert torch.allclose(wanted, gradient(name, terms, shape), atol=1e-6)


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "sapo"])
@pytest.mark.parametrize("tis", [0.0, CAP])
def test_epsilon_changes_the_gradient_whether_or_not_importance_is_sampled(name, tis):
    """A clip that nothing comes of is not to be had."""
    terms = case()
    narrow, wide = (gradient(name, terms, LossOptions(e, e, tis=tis)) for e in (0.01, 5.0))
    assert (narrow - wide).abs().max() > 1e-3


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("tis", [0.0, CAP])
@pytest.mark.parametrize("epsilon", [0.01, 0.2, 5.0])
def test_the_clips_that_are_counted_are_those_that_act(name, tis, epsilon):
    """A token counts exactly where a clip takes its gradient, or, in cispo, cuts its weight."""
    terms = case(1)
    shape = LossOptions(epsilon, epsilon, tis=tis)
    found = gradient(name, terms, shape)
    low, high = clips(name, terms, shape)
    if name == "cispo":
        uncut = gradient(name, terms, LossOptions(epsilon, 1e9, tis=tis))
        assert (~torch.isclose(found, uncut)).tolist() == high.tolist()
        assert not low.any()
    else:
        assert (found == 0).tolist() == (low | high).tolist()
        assert not (low & high).any()
        assert (terms.advantages[low] < 0).all()
        assert (terms.advantages[high] > 0).all()


def run(made):
    made.trainer.run()
    return {step.step: step.metrics for step in made.announced.steps if step.optimized}


def test_epsilon_changes_a_run_from_its_second_step_on(groups, bench):
    """The first step has no weights before it; then a narrow clip acts and a wide one never does."""
    told = {}
    for name, epsilon in (("narrow", 1e-3), ("wide", 5.0)):
        low = min(epsilon, 1.0)  # no ratio is below 1 - 1
        made = bench(groups, max_steps=3, tis=2.0, epsilon_low=low, epsilon_high=epsilon, name=name)
        told[name] = run(made), made.weights()
    (narrow, ours), (wide, theirs) = told["narrow"], told["wide"]
    clipped = [metrics["clip_low"] + metrics["clip_high"] for metrics in narrow.values()]
    assert 0 == clipped[0]
    assert min(clipped[1:]) > 0.01
    assert [0, 0, 0] == [metrics["clip_low"] + metrics["clip_high"] for metrics in wide.values()]
    assert all(0 <= metrics["tis_capped"] < 1 for metrics in narrow.values())
    assert narrow[1]["grad_norm"] == wide[1]["grad_norm"]
    assert narrow[2]["grad_norm"] != wide[2]["grad_norm"]
    assert any(not torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_proximal_policy_is_one_step_behind(groups, bench):
    """Whatever rows come, and however old they are."""
    made = bench(groups, max_steps=3, tis=2.0)
    seen = [made.weights()]
    finish = made.trainer.finish_step

    def finished(step):
        finish(step)
        frozen = dict(made.trainer._proximal.model.named_parameters())
        assert all(torch.equal(frozen[name], value) for name, value in seen[-1].items())
        seen.append(made.weights())

    made.trainer.finish_step = finished
    assert 3 == made.trainer.run()
    assert 4 == len(seen)


NARROW = {"tis": 1.05, "epsilon_low": 1e-3, "epsilon_high": 1e-3}


@pytest.mark.parametrize("cut,skips", [(1, ()), (3, ()), (2, (2,)), (2, (3,))])
def test_a_resumed_run_clips_the_same_tokens(groups, bench, resume, cut, skips):
    """Stopped after any step, skipped ones too: not a bit of the weights differs."""

    def made(steps, **more):
        found = bench(groups, max_steps=steps, **NARROW, **more)
        spoil(found.trainer, *skips)
        found.trainer.run()
        return found

    whole = made(4, name="whole").weights()
    first = made(cut, name="cut")
    folder = checkpoint.newest(first.settings.output_dir)
    second = made(4, name="cut", standing=resume(folder)).weights()
    assert [] == [name for name in whole if not torch.equal(whole[name], second[name])]


def test_a_run_that_turns_it_on_begins_with_the_ratio_one(groups, bench, resume):
    """A checkpoint of before has no weights of the step before it."""
    first = bench(groups, max_steps=1, name="run")
    first.trainer.run()
    folder = checkpoint.newest(first.settings.output_dir)
    assert not (folder / FILE).exists()
    second = bench(groups, max_steps=2, name="run", standing=resume(folder), **NARROW)
    metrics = run(second)[2]
    assert 0 == metrics["clip_low"] + metrics["clip_high"]
    assert (checkpoint.newest(first.settings.output_dir) / FILE).is_file()


@pytest.mark.parametrize("skips", [(), (3, 4)])
@pytest.mark.parametrize("before", [{}, NARROW], ids=["turned on", "as before"])
def test_nothing_is_read_from_a_checkpoint_once_a_run_has_begun(
    groups, bench, resume, skips, before
):
    """Rotation may take it: with `keep` of 1 a single skipped step does."""

    def resumed(name, *, gone):
        bench(groups, max_steps=2, name=name, kl=0.1, **before).trainer.run()
        folder = checkpoint.newest(bench(groups, name=name).settings.output_dir)
        made = bench(
            groups, max_steps=6, name=name, standing=resume(folder), kl=0.1, keep=1, save_every=1,
            **NARROW,
        )  # fmt: skip
        spoil(made.trainer, *skips)
        begin = made.trainer._sync_weight

        def begun():
            begin()
            if gone:
                shutil.rmtree(folder)

        made.trainer._sync_weight = begun
        assert 6 == made.trainer.run()
        return made.weights()

    expected, found = resumed("kept", gone=False), resumed("gone", gone=True)
    assert [] == [name for name in expected if not torch.equal(expected[name], found[name])]


@pytest.mark.parametrize("spoiled", ["other names", "another shape"])
def test_weights_of_another_model_are_no_proximal_policy(tmp_path, spoiled):
    """In one line, not in the middle of a step."""
    proximal = ProximalPolicy(torch.nn.Linear(2, 2).requires_grad_(requires_grad=False))
    assert {} == proximal.tensors()
    proximal.follow(torch.nn.Linear(2, 2))
    write_tensors(tmp_path, PROXIMAL, proximal.tensors())
    proximal.load(tmp_path)
    tensors = load_file(tmp_path / FILE)
    weight = tensors.pop("weight")
    tensors |= {"w": weight} if spoiled == "other names" else {"weight": weight[:1]}
    save_file(tensors, tmp_path / FILE)
    with pytest.raises(BrokenCheckpoint, match="another model"):
        proximal.load(tmp_path)
