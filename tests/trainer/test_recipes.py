"""Every combination of a recipe equals an independent reference; any other is refused at start."""

from dataclasses import replace
from itertools import chain, combinations, product

import pytest
import torch
from pydantic import ValidationError

from odradek.trainer.feed.advantages import BASELINES
from odradek.trainer.loss_table import LOSSES
from odradek.trainer.recipes import RECIPES, Combination, allowed, refusal
from odradek.trainer.settings import TrainerSettings
from odradek.trainer.step.losses import (
    LossInputs,
    LossOptions,
    StepTotals,
    policy_loss,
    preparation_of,
)
from tests.support.trainer.plain_losses import (
    CAP,
    DUAL,
    FLOOR,
    HIGH,
    LENGTH,
    LOW,
    gradient_of,
    importance,
    plain_loss,
    step_of,
)  # fmt: skip
from tests.support.trainer.trl_losses import trl_loss

pytestmark = pytest.mark.torch

LOSS, GRADIENT = 1e-6, 2e-6
"""How far we may be from a reference, relative to it."""


def all_of(recipe):
    """Every combination of a recipe, with each set of its terms."""
    several = chain.from_iterable(
        combinations(sorted(recipe.terms), n) for n in range(len(recipe.terms) + 1)
    )
    for *values, terms in product(
        *(sorted(getattr(recipe, axis)) for axis in
          ("loss", "baseline", "scale_advantages", "correction", "kl_form")),
        map(frozenset, several),
    ):  # fmt: skip
        yield Combination(*values, terms)


def of_losses(recipe):
    """Those that differ in what a loss is computed from: all but the advantages."""
    alike = {replace(c, baseline="mean", scale_advantages="group"): c for c in all_of(recipe)}
    return alike.values()


def ours(combination, rows, *, micro_batches=2):
    """What the trainer makes of a step, as the sum of its micro-batches' shares."""
    form = combination.kl_form
    shape = LossOptions(
        LOW, HIGH,
        kl=0.3 if form and not form.endswith("reward") else 0.0,
        kl_form=form or "k3",
        tis=CAP if combination.correction else 0.0,
        tis_low=FLOOR if combination.correction else 0.0,
        correction=combination.correction or "token_truncate",
        dual_clip=DUAL if "dual_clip" in combination.terms else 0.0,
        entropy=0.05 if "entropy" in combination.terms else 0.0,
        top_entropy=0.4 if "top_entropy" in combination.terms else 1.0,
        fixed_length=LENGTH,
    )  # fmt: skip
    totals = StepTotals(sum(r.weight * len(r.new) for r in rows), sum(r.weight for r in rows))
    if shape.top_entropy < 1:
        entropies = torch.cat([r.entropy.detach() for r in rows])
        floor = float(entropies.quantile(1 - 0.4))
        chosen = sum(r.weight * float((r.entropy >= floor).sum()) for r in rows)
        totals = replace(totals, entropy_floor=floor, chosen=chosen)
    cut = len(rows) // 2 if micro_batches == 2 else 0
    shares = []
    for part in filter(None, (rows[:cut], rows[cut:])):
        lengths = torch.tensor([len(r.new) for r in part])
        terms = LossInputs(
            logprobs=torch.cat([r.new for r in part]),
            old_logprobs=torch.cat([r.old for r in part]),
            advantages=torch.cat([r.worth for r in part]),
            row=torch.repeat_interleave(torch.arange(len(part)), lengths),
            n_rows=len(part),
            reference=torch.cat([r.reference for r in part]),
            weights=torch.tensor([r.weight for r in part], dtype=torch.float64),
            proximal=torch.cat([r.near for r in part]),
            entropy=torch.cat([r.entropy for r in part]),
        )
        shares.append(policy_loss(combination.loss, terms, totals, shape))
    return sum(shares)


def apart(reference, combination, seed, weights=None):
    """Relative distance of two losses, and of their gradients relative to the norm.

    Of the first draw from a seed on at which no clip or mask takes the whole gradient.
    """
    wanted = torch.zeros(1)
    while not wanted.norm() > 0:
        rows = step_of(seed=seed, weights=weights)
        expected, seed = reference(combination, rows), seed + 1000
        wanted = gradient_of(expected, rows)
    got = ours(combination, rows)
    return (
        abs((expected - got).item()) / abs(expected.item()),
        float((wanted - gradient_of(got, rows)).norm() / wanted.norm()),
    )


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.source.split(";")[0][:40])
def test_every_combination_of_a_recipe_equals_plain_torch(recipe):
    """With rows of unequal weight, in two micro-batches; each combination has policies of its own."""
    for seed, combination in enumerate(of_losses(recipe)):
        loss, gradient = apart(plain_loss, combination, seed, (1.0, 0.5, 0.5, 1.0))
        assert loss <= LOSS, (combination, seed, loss)
        assert gradient <= GRADIENT, (combination, seed, gradient)


@pytest.mark.parametrize("recipe", [r for r in RECIPES if r.source.startswith("TRL")],
                         ids=lambda recipe: recipe.source.split(";")[0])  # fmt: skip
def test_every_combination_of_trls_recipes_equals_trl(recipe):
    """TRL's own function, on the same log probabilities."""
    for seed, combination in enumerate(of_losses(recipe)):
        loss, gradient = apart(trl_loss, combination, seed)
        assert loss <= LOSS, (combination, loss)
        assert gradient <= GRADIENT, (combination, gradient)


@pytest.mark.parametrize("correction", ["", "sequence_truncate", "token_truncate"])
def test_a_weight_of_each_token_in_gspo_is_trls_and_not_verls(correction):
    """In verl a ratio has the gradient of its own token alone, so weights of tokens move others.

    The loss is the same; a weight of the whole row moves the same in both.
    """
    rows = step_of(seed=1)
    values = []
    for row in rows:
        before = row.near if correction else row.old
        whole = (row.new - before).mean()
        ratio = (row.new - row.new.detach() + whole.detach()).exp()
        gain = torch.min(ratio * row.worth, ratio.clamp(1 - LOW, 1 + HIGH) * row.worth)
        weight = importance(row, correction, (FLOOR, CAP)) if correction else 1.0
        values.append((-gain * weight).mean())
    verl = sum(values) / len(values)
    got = ours(Combination("gspo", "mean", correction=correction), rows)
    difference = gradient_of(verl, rows) - gradient_of(got, rows)
    assert verl.item() == pytest.approx(got.item(), rel=LOSS)
    assert (difference.norm() <= GRADIENT) == (correction != "token_truncate")
    taken = Combination("gspo", "mean", correction=correction, kl_form="k2")
    assert allowed(taken) == (correction != "token_truncate")


def test_in_float32_the_losses_stay_within_the_same_bounds():
    """As the trainer computes them; the reference has the same rows in float64."""
    for name in LOSSES:
        rows = step_of((40, 12, 70, 33), seed=2)
        short = [
            replace(r, **{k: getattr(r, k).detach().float() for k in
                          ("old", "near", "reference", "worth")},
                    new=r.new.detach().float().requires_grad_(),
                    entropy=r.entropy.detach().float().requires_grad_())
            for r in rows
        ]  # fmt: skip
        combination = Combination(name, "mean")
        expected, got = plain_loss(combination, short), ours(combination, short)
        assert got.dtype == torch.float32 or got.dtype == torch.float64
        wanted, found = gradient_of(expected, short), gradient_of(got, short)
        assert float((wanted - found).norm() / wanted.norm()) <= GRADIENT, name


def test_each_loss_each_baseline_and_each_correction_is_in_a_recipe():
    """Twelve, six and four."""
    combined = [combination for recipe in RECIPES for combination in all_of(recipe)]
    assert set(LOSSES) == {c.loss for c in combined}
    assert set(BASELINES) == {c.baseline for c in combined}
    assert 4 == len({c.correction for c in combined} - {""})
    assert (12, 6) == (len(LOSSES), len(BASELINES))


def given(combination):
    """The settings that combine so."""
    return {
        "loss": combination.loss,
        "baseline": combination.baseline,
        "scale_advantages": combination.scale_advantages,
        **({"tis": 2.0, "correction": combination.correction} if combination.correction else {}),
        **({"kl": 0.1, "kl_form": combination.kl_form} if combination.kl_form else {}),
        **({"dual_clip": 3.0} if "dual_clip" in combination.terms else {}),
        **({"entropy": 0.01} if "entropy" in combination.terms else {}),
        **({"top_entropy": 0.2} if "top_entropy" in combination.terms else {}),
    }


def test_settings_take_exactly_what_a_recipe_has():
    """The whole product; a refusal is one line with the loss and what it goes with."""
    taken = 0
    for loss, baseline, scale, correction, form, terms in product(
        LOSSES, BASELINES, ("group", "batch", "none"),
        ("", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"),
        ("", "k1", "k2", "k3", "k3_weighted", "k1_reward"),
        (frozenset(), frozenset({"dual_clip"})),
    ):  # fmt: skip
        wanted = Combination(loss, baseline, scale, correction, form, terms)
        line = refusal(wanted)
        assert allowed(wanted) == (not line)
        if line:
            assert line.startswith(f"loss = {loss} goes with ")
            assert "\n" not in line
        taken += not line
    assert taken == len({c for r in RECIPES for c in all_of(r) if c.terms <= {"dual_clip"}
                         and c.kl_form in {"", "k1", "k2", "k3", "k3_weighted", "k1_reward"}})  # fmt: skip


@pytest.mark.parametrize(("wrong", "line"), [
    ({"loss": "rloo"}, "baseline = leave_one_out (not mean); scale_advantages = none (not group)"),
    ({"loss": "dppo", "tis": 2.0}, "goes with tis = 0"),
    ({"loss": "cispo", "dual_clip": 3.0}, "goes with dual_clip = 0"),
    ({"loss": "sapo", "baseline": "median"}, "baseline = mean (not median)"),
    ({"loss": "gmpo", "kl": 0.1, "kl_form": "k1"}, "kl_form = k3 or kl = 0 (not k1)"),
])  # fmt: skip
def test_a_refusal_says_what_goes_together(wrong, line):
    """And where the table is, and what is never refused."""
    with pytest.raises(ValidationError) as caught:
        TrainerSettings(**wrong)
    (error,) = caught.value.errors()
    assert line in error["msg"]
    assert "docs/learning.md" in error["msg"]
    assert "module:function" in error["msg"]


def test_settings_and_recipes_agree():
    """One of each recipe is taken as settings."""
    for recipe in RECIPES:
        for combination in (*all_of(recipe),)[::17]:
            settings = TrainerSettings(**given(combination))
            assert combination.kl_form.endswith("reward") == preparation_of(settings).surveys or (
                settings.top_entropy < 1
            )


@pytest.mark.parametrize("own", [{"loss": "mine:loss"}, {"baseline": "mine:advantages"}])
def test_what_is_a_persons_own_goes_with_everything(own):
    """They know what they do."""
    for correction, form in product(("token_mask", "sequence_truncate"), ("k1", "k3_weighted")):
        TrainerSettings(**own, tis=2.0, correction=correction, kl=0.1, kl_form=form)
