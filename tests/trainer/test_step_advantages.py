"""Advantages that need a whole step, and the tokens with the most entropy, against their papers."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odradek.trainer.feed.advantages import advantages
from odradek.trainer.feed.rows import rows_of
from odradek.trainer.feed.step_advantages import StepRules, step_advantages
from odradek.trainer.losses.top_entropy import floor_of
from odradek.trainer.plan.prefix_tree import pack, targets
from tests.support.trainer.played_groups import group_with_rewards


def drawn(seed, groups=3, samples=4):
    """Rows of a step, a KL estimate for each of their sampled tokens, and their rewards."""
    random = np.random.default_rng(seed)
    rewards = random.integers(0, 3, (groups, samples)).astype(float)
    rows = []
    for offset, of_group in enumerate(rewards.tolist()):
        rows += rows_of(group_with_rewards(offset, of_group), baseline="batch")
    lengths = random.integers(1, 7, len(rows))
    rows = [longer(row, n) for row, n in zip(rows, lengths, strict=True)]
    return rows, [random.normal(0, 0.1, row.sampled).astype(np.float32) for row in rows], rewards


def longer(row, n):
    """The row with n sampled tokens behind one that was not."""
    mask = np.arange(n + 1) > 0
    zeros = np.zeros(n + 1, np.float32)
    return replace(row, ids=np.arange(5, n + 6), mask=mask, logprobs=zeros, temperatures=None)


def tokens_of(rows):
    """The advantage of each sampled token, row after row, as the trainer packs them."""
    tree = pack([row.ids for row in rows])
    return targets(rows, tree.paths).advantages


@pytest.mark.parametrize("seed", range(5))
def test_reinforce_pp_is_its_paper(seed):
    """Returns to go with k1 in the reward, then the mean and deviation of all of the step's tokens."""
    rows, kls, rewards = drawn(seed)
    returns = []
    for row, kl, reward in zip(rows, kls, rewards.flatten(), strict=True):
        returns += [reward - 0.3 * sum(kl[t:].tolist()) for t in range(row.sampled)]
    mean = sum(returns) / len(returns)
    spread = (sum((r - mean) ** 2 for r in returns) / len(returns) + 1e-8) ** 0.5
    made = step_advantages(rows, StepRules("batch", "batch", 0.3), kls)
    assert [(r - mean) / spread for r in returns] == pytest.approx(tokens_of(made), rel=1e-5)


@pytest.mark.torch
@pytest.mark.parametrize("seed", range(5))
def test_rloo_with_kl_in_the_reward_is_trls(seed):
    """TRL's own RLOOTrainer scores the same groups: a sample loses the KL of its whole reply."""
    import torch

    from tests.support.trainer.trl_losses import trl_rloo_advantages

    rows, kls, rewards = drawn(seed)
    old = [torch.from_numpy(kl).double() - 1 for kl in kls]
    reference = [torch.full_like(values, -1.0) for values in old]
    expected = trl_rloo_advantages(torch.from_numpy(rewards), old, reference, kl=0.3).numpy()
    base = np.concatenate(
        [advantages(group, baseline="leave_one_out", scale=False) for group in rewards]
    )
    rows = [replace(row, advantage=a) for row, a in zip(rows, base.tolist(), strict=True)]
    made = step_advantages(rows, StepRules("leave_one_out", "none", 0.3), kls)
    per_token = np.repeat(expected, [row.sampled for row in rows])
    assert per_token == pytest.approx(tokens_of(made), rel=1e-5)


@settings(deadline=None)
@given(seed=st.integers(0, 999), weights=st.lists(st.sampled_from([1.0, 0.5]), min_size=12))
def test_normalised_advantages_have_mean_0_and_deviation_1_as_rows_weigh(seed, weights):
    """Where the step's samples were not all worth the same."""
    rows, _, _ = drawn(seed)
    rows = [replace(row, weight=weights[place]) for place, row in enumerate(rows)]
    made = step_advantages(rows, StepRules("batch", "batch"))
    values = tokens_of(made).astype(np.float64)
    w = np.repeat([row.weight for row in rows], [row.sampled for row in rows])
    assert 0 == pytest.approx((w * values).sum() / w.sum(), abs=1e-5)
    if np.ptp([row.advantage for row in rows]):
        assert 1 == pytest.approx((w * values**2).sum() / w.sum(), rel=1e-4)
    else:
        assert not values.any()


def test_rows_of_other_rules_are_left_as_they_are():
    """Not copied, either."""
    rows, kls, _ = drawn(0)
    made = step_advantages(rows, StepRules("mean", "group"), kls)
    assert all(left is right for left, right in zip(rows, made, strict=True))


@settings(deadline=None)
@given(seed=st.integers(0, 999))
def test_the_same_rows_have_the_same_advantages_however_often(seed):
    """Nothing is kept from step to step."""
    rows, kls, _ = drawn(seed)
    rules = StepRules("batch", "batch", 0.1)
    first, second = (tokens_of(step_advantages(rows, rules, kls)) for _ in range(2))
    assert first.tolist() == second.tolist()


@pytest.mark.torch
@settings(deadline=None)
@given(
    entropies=st.lists(
        st.lists(st.floats(0, 3, width=32), min_size=1, max_size=6), min_size=1, max_size=5
    ),
    share=st.sampled_from([0.05, 0.2, 0.5, 0.8]),
)
def test_the_tokens_with_the_most_entropy_are_those_of_trl(entropies, share):
    """Its own mask over a padded batch; and how many there are, as they weigh."""
    import torch
    from trl.trainer.grpo_trainer import GRPOTrainer

    from tests.support.trainer.trl_losses import ACCELERATOR, padded

    rows = [torch.tensor(values, dtype=torch.float64) for values in entropies]
    mask = padded([torch.ones_like(row) for row in rows])
    fake = type("Fake", (), {"accelerator": ACCELERATOR})()
    expected = GRPOTrainer.get_high_entropy_mask(fake, padded(rows), mask, 1 - share)
    weights = [1.0 / (1 + place) for place in range(len(rows))]
    floor, count = floor_of([np.array(values) for values in entropies], weights, share)
    found = [[value >= floor for value in values] for values in entropies]
    cut = [row[: len(values)].tolist() for row, values in zip(expected, entropies, strict=True)]
    # TRL's quantile is of float32: where it falls upon a token, rounding decides there.
    place = (int(mask.sum()) - 1) * (1 - share)
    if abs(place - round(place)) > 1e-3 and all(b - a > 1e-6 for a, b in neighbours(entropies)):
        assert cut == found
    assert sum(w * sum(f) for w, f in zip(weights, found, strict=True)) == pytest.approx(count)


def neighbours(entropies):
    """Each two of all values that follow each other and are not the same."""
    ordered = sorted(value for values in entropies for value in values)
    return [(a, b) for a, b in pairwise(ordered) if a != b]


@settings(deadline=None)
@given(values=st.lists(st.floats(0, 3), min_size=2, max_size=12), noise=st.floats(-1e-9, 1e-9))
def test_another_rounding_chooses_the_same_tokens(values, noise):
    """The floor lies in the middle of a gap."""
    every = np.array(values)
    floor, _ = floor_of([every], [1.0], 0.4)
    if all(abs(a - b) > 1e-6 for a, b in neighbours([values])):
        assert ((every >= floor) == (every + noise >= floor)).all()
