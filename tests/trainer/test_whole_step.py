"""What needs a whole step: normalised advantages, KL in the reward, the tokens with the most entropy.

Through the trainer, against plain torch over the same rows; whatever the plan, the memory, and
however often the run is resumed.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from odradek.trainer.commit import checkpoint
from odradek.trainer.errors import BadSettings
from odradek.trainer.feed.rows import rows_of
from odradek.trainer.feed.step_advantages import StepRules
from odradek.trainer.learning import require_own
from odradek.trainer.losses.preparation import Preparation, RowSurvey
from odradek.trainer.models import load_model
from odradek.trainer.plan.budget import TokenBudget
from odradek.trainer.recipes import Combination
from odradek.trainer.settings import TrainerSettings
from odradek.trainer.step.gradient import StepGradient
from odradek.trainer.step.packing import totals_of
from tests.support.trainer.gradients import compute_in_the_weights_type, gradient_of, loss_of
from tests.support.trainer.plain_losses import PlainRow, plain_loss

pytestmark = pytest.mark.torch

REINFORCE_PP = {
    "loss": "reinforce_pp", "baseline": "batch", "scale_advantages": "batch", "kl": 0.3,
    "kl_form": "k1_reward",
}  # fmt: skip
RLOO = {
    "loss": "rloo", "baseline": "leave_one_out", "scale_advantages": "none", "kl": 0.3,
    "kl_form": "k1_reward",
}  # fmt: skip
ENTROPY = {
    "loss": "dapo", "entropy": 0.05, "top_entropy": 0.4, "kl": 0.3, "kl_form": "k3_weighted",
}  # fmt: skip
FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.fixture
def step(groups, tiny, monkeypatch):
    """16 off-policy rows of two whole groups, and a reference model that is another one."""
    compute_in_the_weights_type(monkeypatch)
    chance = np.random.default_rng(0)

    def made(settings):
        rules = TrainerSettings(**settings).rules
        varied = [group for group in groups if not group.batch.zero_variance][:2]
        rows = [
            row
            for group in varied
            for row in rows_of(group, baseline=rules.baseline, scale=rules.scale)
        ]
        noise = [np.where(r.mask, chance.normal(0, 0.1, len(r.ids)), 0) for r in rows]
        return [
            replace(row, logprobs=(row.logprobs + by).astype(np.float32))
            for row, by in zip(rows, noise, strict=True)
        ]

    return made


def trainer_of(bench, rows, settings, *, tokens, name):
    """A trainer in float64 whose reference is not the model itself."""
    made = bench([], rows_per_step=len(rows), micro_tokens=tokens, name=name, **settings).trainer
    made.model.double()
    made._reference.double()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in made._reference.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return made


def plain_rows(model, reference, rows):
    """The rows under both models, one after the other."""
    made = []
    for row in rows:
        ids, places = torch.tensor(row.ids), torch.tensor(row.mask).nonzero()[:, 0]
        scores = [
            one(input_ids=ids[None]).logits[0, places - 1].log_softmax(-1)
            for one in (model, reference)
        ]
        new, ref = (score.gather(1, ids[places, None])[:, 0] for score in scores)
        old = torch.tensor(row.logprobs)[places].double()
        entropy = -(scores[0].exp() * scores[0]).sum(-1)
        worth = torch.full_like(old, row.advantage)
        made.append(PlainRow(new, old, old, ref.detach(), entropy, worth))
    return made


def as_reinforce_pp(rows, plain):
    """The advantages of its paper."""
    to_go = [(p.old - p.reference).flip(0).cumsum(0).flip(0) for p in plain]
    returns = [row.reward - 0.3 * k for row, k in zip(rows, to_go, strict=True)]
    every = torch.cat(returns)
    spread = (every.var(correction=0) + 1e-8).sqrt()
    return [(values - every.mean()) / spread for values in returns]


def as_rloo(rows, plain):
    """Each sample's reward minus its KL, against the others of its group."""
    net = [
        row.reward - 0.3 * (p.old - p.reference).sum() for row, p in zip(rows, plain, strict=True)
    ]
    values = []
    for place, (row, p) in enumerate(zip(rows, plain, strict=True)):
        others = [n for i, n in enumerate(net) if rows[i].offset == row.offset and i != place]
        values.append((net[place] - sum(others) / len(others)).expand(len(p.old)))
    return values


@pytest.mark.parametrize(("settings", "worth"), [
    (REINFORCE_PP, as_reinforce_pp), (RLOO, as_rloo), (ENTROPY, None),
], ids=["reinforce_pp", "rloo", "entropy"])  # fmt: skip
def test_a_step_is_the_plain_line_whatever_the_plan(step, bench, tiny, settings, worth):
    """Loss within 1e-6, gradient within 2e-6 of its norm: in one micro-batch and in many."""
    rows = step(settings)
    model = load_model(tiny).double()
    trainer = trainer_of(bench, rows, settings, tokens=100_000, name="whole")
    reference = load_model(tiny).double()
    reference.load_state_dict(trainer._reference.state_dict())
    plain = plain_rows(model, reference, rows)
    if worth is not None:
        made = worth(rows, plain)
        plain = [replace(p, worth=a.detach()) for p, a in zip(plain, made, strict=True)]
    terms = frozenset({"entropy", "top_entropy"} if settings is ENTROPY else ())
    combination = Combination(
        settings["loss"], settings.get("baseline", "mean"), kl_form=settings["kl_form"], terms=terms
    )
    expected = plain_loss(combination, plain)
    expected.backward()
    wanted = gradient_of(model)
    loss = loss_of(trainer, rows)
    together = gradient_of(trainer.model)
    assert expected.item() == pytest.approx(loss, rel=1e-6)
    assert (wanted - together).norm() <= 2e-6 * wanted.norm()
    cut = trainer_of(bench, rows, settings, tokens=64, name="cut")
    loss_of(cut, rows)
    assert len(cut._gradient.batches) > 4
    assert (together - gradient_of(cut.model)).norm() <= 1e-6 * wanted.norm()


@pytest.mark.parametrize("settings", [REINFORCE_PP, {**ENTROPY, "kl": 0.0}],
                         ids=["reinforce_pp", "entropy"])  # fmt: skip
def test_a_run_that_is_resumed_has_the_same_weights_bit_by_bit(groups, bench, resume, settings):
    """Nothing that a step needs is kept from step to step."""
    whole = bench(groups, max_steps=3, name="whole", save_every=1, **settings)
    whole.trainer.run()
    first = bench(groups, max_steps=2, name="cut", save_every=1, **settings)
    first.trainer.run()
    folder = checkpoint.newest(first.settings.output_dir)
    second = bench(groups, max_steps=3, name="cut", standing=resume(folder), **settings)
    second.trainer.run()
    ours, theirs = whole.weights(), second.weights()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_survey_that_runs_out_of_memory_is_planned_anew(step):
    """Each row is surveyed in the plan that is used in the end, and the totals are of those."""
    rows = step({})
    seen, used = [], []

    def survey(those):
        if sum(len(row.ids) for row in those) > 160:
            raise FULL
        seen.extend(row.index for row in those)
        return [RowSurvey(entropy=np.arange(row.sampled, dtype=np.float32)) for row in those]

    def backward(those, totals):
        used.append((totals.entropy_floor, totals.chosen))

    gradient = StepGradient(
        TokenBudget.of(100_000), backward, seen.clear, lambda _: None,
        Preparation(top_entropy=0.5), survey,
    )  # fmt: skip
    assert () == gradient.compute(rows)
    assert sorted(row.index for row in rows) == sorted(seen)
    assert 1 == len(set(used))
    _, totals = Preparation(top_entropy=0.5).prepared(
        rows, totals_of(rows),
        [RowSurvey(entropy=np.arange(row.sampled, dtype=np.float32)) for row in rows],
    )  # fmt: skip
    assert (totals.entropy_floor, totals.chosen) == used[0]


def test_rows_are_told_apart_in_a_micro_batch():
    """KL of each row's own tokens."""
    wanted = Preparation(StepRules("batch", "batch", 0.1))
    old, ref = torch.tensor([-1.0, -2.0, -3.0]), torch.tensor([-1.5, -1.0, -3.0])
    first, second = wanted.surveyed(2, torch.tensor([0, 1, 1]), old, ref, None)
    assert ([0.5], [-1.0, 0.0]) == (first.kl.tolist(), second.kl.tolist())
    assert first.entropy is None


def test_ones_own_loss_and_baseline_train_a_run(groups, bench, tmp_path, monkeypatch):
    """By their import paths; what is not there is refused before anything begins."""
    (tmp_path / "ours.py").write_text(
        "def plain(terms, options):\n    return -terms.advantages * terms.logprobs\n"
        "def above_worst(rewards):\n    return rewards - rewards.min()\nodd = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    own = {"loss": "ours:plain", "baseline": "ours:above_worst"}
    made = bench(groups, max_steps=1, **own)
    require_own(made.settings)
    made.trainer.run()
    (entry,) = [entry for entry in made.announced.steps if entry.optimized]
    assert entry.metrics["grad_norm"] > 0
    for wrong, why in (
        ("ours:gone", "no 'gone'"),
        ("ours:odd", "no function"),
        ("no.mo:x", "no module"),
    ):
        with pytest.raises(BadSettings, match=why):
            require_own(TrainerSettings(loss=wrong))
