"""Numbers that ruin a run: rows that hold them are refused by name, and no loss makes others of them."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from msgspec.structs import replace as changed

from odradek.schemas import arrays
from odradek.trainer.feed.advantages import advantages
from odradek.trainer.feed.cursor import Cursor
from odradek.trainer.feed.lineage import Lineage
from odradek.trainer.feed.rows import fault_of, rows_of
from odradek.trainer.feed.rules import RowRules
from odradek.trainer.loss_table import LOSSES
from odradek.trainer.step.losses import LossInputs, LossOptions, StepTotals, policy_loss
from odradek.trainer.step.metrics import RowFacts, StepMetrics
from tests.support.trainer.played_groups import group_with_rewards

pytestmark = pytest.mark.torch

FAR = [-9999.0, -1e30, -3e38, -120.0, -50.0, -20.0, 0.0, 20.0, 120.0]
"""What a log probability has been: engines' words for minus infinity, and what is only unlikely."""


def terms_of(new, old, worth, reference=None):
    """Three tokens in two rows, of which the middle one is as far off as `new` and `old` say."""
    logprobs = torch.tensor([-0.5, new, -0.1], requires_grad=True)
    return LossInputs(
        logprobs=logprobs,
        old_logprobs=torch.tensor([-0.4, old, -0.1]),
        advantages=torch.tensor([worth, worth, -worth]),
        row=torch.tensor([0, 0, 1]),
        n_rows=2,
        reference=None if reference is None else torch.tensor([-0.5, reference, -0.1]),
    )


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("old", FAR)
def test_no_distance_between_two_policies_makes_a_gradient_that_is_no_number(name, old):
    """prime-rl#2972, slime#2198: exp of a distance leaves float32 from 88 nats on."""
    for new, worth, tis, near in product(
        [-1e4, -120.0, -0.5, 0.0], [1.0, -1.0], [0.0, 2.0], [-1e4, -90.0, 0.0]
    ):
        proximal = torch.tensor([-0.5, near, -0.2]) if tis else None
        terms = replace(terms_of(new, old, worth), proximal=proximal)
        loss = policy_loss(name, terms, StepTotals(3, 2), LossOptions(tis=tis))
        (gradient,) = torch.autograd.grad(loss, terms.logprobs)
        assert torch.isfinite(loss), (new, worth, tis, near, loss)
        assert torch.isfinite(gradient).all(), (new, worth, tis, near, gradient)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("reference", FAR)
def test_no_distance_to_the_reference_does_either(name, reference):
    """The KL term is an exponential, too."""
    terms = terms_of(-0.5, -0.5, 1.0, reference)
    loss = policy_loss(name, terms, StepTotals(3, 2), LossOptions(kl=0.1))
    (gradient,) = torch.autograd.grad(loss, terms.logprobs)
    assert torch.isfinite(loss), loss
    assert torch.isfinite(gradient).all(), gradient


@pytest.mark.parametrize("old", FAR)
def test_metrics_of_far_tokens_are_numbers(old):
    """A step that is told about says how far it was, not nothing."""
    measured = StepMetrics()
    terms = terms_of(-0.5, old, 1.0)
    facts = RowFacts(torch.zeros(2), torch.tensor([1.0, 0.0]), 9)
    measured.add(terms, torch.tensor(0.5), torch.ones(3), facts, LossOptions())
    group = group_with_rewards(0, [1.0, 0.0])
    consumption = Cursor(RowRules(rows_per_step=2), Lineage())
    consumption.feed(group)
    metrics = measured.finish(consumption.finish_step(), 1.0)
    assert set() == {"loss", "ratio_mean", "kl", "mismatch_k3", "mismatch_max"} - metrics.keys()


def with_logprob(group, sample, value):
    """The group with another log probability at a sample's first sampled token."""
    pointer, episode = group.episodes[sample]
    (sequence,) = episode.sequences
    told = np.array([value, -0.1], dtype=np.float32)
    spoiled = changed(episode, sequences=(changed(sequence, logprobs=told.tobytes()),))
    pairs = list(group.episodes)
    pairs[sample] = (pointer, spoiled)
    return replace(group, episodes=tuple(pairs))


@pytest.mark.parametrize(
    "value",
    [-9999.0, -1e4, -120.0, -50.1, -3.4e38, 0.01, 0.5, 1.0, 50.0, 3.4e38],
)
def test_a_row_with_a_log_probability_that_is_none_is_refused_by_name(value):
    """UniRL#330: below -50, or above 0 by more than rounding; the others of its group are used."""
    consumption = Cursor(RowRules(rows_per_step=1), Lineage())
    rows = consumption.feed(with_logprob(group_with_rewards(0, [1.0, 0.0, 0.0]), 1, value))
    assert ["e0-0", "e0-2"] == [row.episode_id for row in rows]
    refused = consumption.passed_idle().refused
    assert [("logprobs", "e0-1", 1)] == [(r.reason, r.episode_id, r.row) for r in refused]


@pytest.mark.parametrize("value", [-50.0, -49.9, -1e-6, 0.0, 1e-6, 1e-4])
def test_a_row_with_a_log_probability_that_can_be_one_is_used(value):
    """Rounding may lift a certain token above 0."""
    consumption = Cursor(RowRules(rows_per_step=1), Lineage())
    rows = consumption.feed(with_logprob(group_with_rewards(0, [1.0, 0.0]), 1, value))
    assert ["e0-0", "e0-1"] == [row.episode_id for row in rows]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_does_not_even_decode(value):
    """The wire has no such numbers; a row that holds one all the same is refused."""
    group = group_with_rewards(0, [1.0, 0.0])
    with pytest.raises(arrays.InvalidRecord):
        rows_of(with_logprob(group, 1, value))
    (row, _) = rows_of(group)
    row.logprobs[row.mask] = value
    assert "logprobs" == fault_of(row)


def test_what_was_not_sampled_may_hold_anything():
    """A prompt's log probabilities are nobody's."""
    (row, _) = rows_of(group_with_rewards(0, [1.0, 0.0]))
    row.logprobs[~row.mask] = -9999
    assert "" == fault_of(row)


def test_a_row_with_a_token_that_the_model_has_not_is_refused_by_name():
    """Its embedding is looked up in memory that is not there: a crash, and again at every start."""
    consumption = Cursor(RowRules(rows_per_step=1), Lineage())
    consumption.vocabulary = 11  # ids of these groups are 5, 6, 10 and so on, and 3
    rows = consumption.feed(group_with_rewards(0, [1.0, 0.0, 0.0]))
    assert ["e0-0"] == [row.episode_id for row in rows]
    assert [("token_ids", 1), ("token_ids", 2)] == [
        (r.reason, r.row) for r in consumption.passed_idle().refused
    ]


SIZES = [1e308, -1e308, 1.7e308, 1e200, 1e39, 1e30, 1e10, 1e-30, 1e-45, 1e-308, 1e-320, 5e-324]


@pytest.mark.parametrize("baseline", ["mean", "median", "leave_one_out"])
@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_advantages_that_leave_float32_are_refused_and_all_others_are_numbers(
    baseline, scale, size
):
    """From finite rewards of any size, and without a warning on the way."""
    for others in ((0.0, 0.0), (1.0, 0.0), (-size, 0.0), (size, 0.0)):
        rules = RowRules(rows_per_step=1, baseline=baseline, scale=scale)
        consumption = Cursor(rules, Lineage())
        rows = consumption.feed(group_with_rewards(0, [size, *others]))
        for row in rows:
            told = np.float32(row.advantage)
            assert np.isfinite(told)
            assert np.isfinite(told * told), "the norm of a gradient sums up squares"
            assert bool(told) == bool(row.advantage), "nothing can be learned from it"
        refused = consumption.passed_idle().refused
        assert {r.reason for r in refused} <= {"advantage"}
        assert 3 == len(rows) + len(refused)


def test_rewards_of_usual_size_give_the_same_advantages_bit_for_bit():
    """Large ones are halved until they fit, which rounds nothing."""
    random = np.random.default_rng(0)
    for n in (2, 3, 8):
        for spread in (1e-3, 1.0, 1000.0):
            rewards = random.normal(0, spread, n)
            plain = (rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-4)
            assert plain.tolist() == advantages(rewards).tolist()


def test_rewards_of_any_size_are_compared():
    """A group of games worth 1e308 is as good as one of games worth 1."""
    large = advantages(np.array([1e308, -1e308, 1e308, 0.0]))
    small = advantages(np.array([1e10, -1e10, 1e10, 0.0]))
    assert small.tolist() == pytest.approx(large.tolist(), rel=1e-9)


def test_a_reward_whose_mean_leaves_float64_leaves_the_metric_out():
    """What cannot be told is not told; nothing is warned about."""
    consumption = Cursor(RowRules(rows_per_step=3), Lineage())
    consumption.feed(group_with_rewards(0, [1.7e308, 1.7e308, -1.7e308]))
    metrics = StepMetrics().finish(consumption.finish_step(), 1.0)
    assert "reward_mean" not in metrics
    assert 2 / 3 == pytest.approx(metrics["success"])
