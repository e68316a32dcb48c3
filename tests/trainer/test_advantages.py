"""Advantages and what length costs, against references that are written from the papers."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as changed

from odradek.schemas.arrays import pack_floats, pack_ids
from odradek.schemas.events import Span
from odradek.trainer.errors import InvalidAdvantages
from odradek.trainer.feed.advantages import BASELINES, advantages, uninformative
from odradek.trainer.feed.cursor import Cursor
from odradek.trainer.feed.lineage import Lineage
from odradek.trainer.feed.rows import rows_of
from odradek.trainer.feed.rules import RowRules, why_not
from odradek.trainer.feed.shaping import LengthShaping
from odradek.trainer.settings import TrainerSettings
from tests.support.trainer.played_groups import group_with_rewards

REWARDS = st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=8)
NUMBERS = st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=8)


def made(rewards, **rules):
    return advantages(np.array(rewards, dtype=np.float64), **rules).tolist()


def reference(baseline, rewards, k=3):
    """Each advantage as its paper has it, by loops."""
    n, mean = len(rewards), sum(rewards) / len(rewards)
    if baseline == "median":
        ordered = sorted(rewards)
        middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
        return [reward - middle for reward in rewards]
    if baseline == "leave_one_out":
        others = [rewards[:i] + rewards[i + 1 :] or [rewards[i]] for i in range(n)]
        return [r - sum(other) / len(other) for r, other in zip(rewards, others, strict=True)]
    if baseline == "batch":
        return list(rewards)
    if baseline == "max_rl":
        return [(r - mean) / mean if mean > 0 else 0.0 for r in rewards]
    if baseline == "mean":
        return [r - mean for r in rewards]
    k = min(k, n)
    groups = list(combinations(range(n), k))
    worth = {group: float(any(rewards[i] >= 1 for i in group)) for group in groups}
    average = sum(worth.values()) / len(groups)
    spread = (average * (1 - average)) ** 0.5
    mine = [[worth[group] for group in groups if i in group] for i in range(n)]
    return [(sum(w) / len(w) - average) / spread if spread else 0.0 for w in mine]


@pytest.mark.parametrize("baseline", BASELINES)
@settings(deadline=None)
@given(rewards=REWARDS)
def test_each_advantage_of_wins_and_losses_is_that_of_its_paper(baseline, rewards):
    """Pass@k by going through every group of k; all others by their lines."""
    scale = baseline == "pass_at_k"
    found = made(rewards, baseline=baseline, scale=scale, k=3)
    assert reference(baseline, rewards) == pytest.approx(found, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("baseline", ["mean", "median", "leave_one_out", "batch"])
@settings(deadline=None)
@given(rewards=NUMBERS)
def test_so_it_is_of_any_numbers(baseline, rewards):
    """And with `scale` it is divided by the deviation with n - 1, and 1e-4."""
    expected = reference(baseline, rewards)
    found = made(rewards, baseline=baseline, scale=False)
    assert expected == pytest.approx(found, rel=1e-6, abs=1e-9)
    if baseline != "batch":
        spread = float(np.std(rewards, ddof=1)) if len(rewards) > 1 else 0.0
        divided = [value / (spread + 1e-4) for value in expected]
        assert divided == pytest.approx(made(rewards, baseline=baseline), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("baseline", ["mean", "leave_one_out", "pass_at_k", "max_rl"])
@settings(deadline=None)
@given(rewards=REWARDS)
def test_advantages_of_a_group_are_centred(baseline, rewards):
    """What they sum up to is 0."""
    assert 0 == pytest.approx(sum(made(rewards, baseline=baseline, k=2)), abs=1e-9)


@pytest.mark.parametrize("baseline", BASELINES)
@settings(deadline=None)
@given(rewards=REWARDS)
def test_a_group_without_an_advantage_is_passed_and_no_other(baseline, rewards):
    """By name, whatever the baseline; with `batch` a group is compared with the rest of its step."""
    batch = group_with_rewards(0, rewards).batch
    reason = why_not(batch, RowRules(baseline=baseline, pass_k=3))
    idle = uninformative(np.array(rewards), baseline=baseline, k=3)
    assert ("zero_variance" if idle else "") == reason
    if baseline != "batch":
        assert idle == (not any(made(rewards, baseline=baseline, scale=False, k=3)))


@pytest.mark.parametrize(("baseline", "rewards", "used"), [
    ("mean", [1.0, 1.0], 0), ("batch", [1.0, 1.0], 2), ("pass_at_k", [1.0, 1.0, 0.0], 0),
    ("pass_at_k", [1.0, 0.0, 0.0], 3), ("max_rl", [-1.0, 1.0], 0),
])  # fmt: skip
def test_which_groups_are_used_follows_from_the_baseline(baseline, rewards, used):
    """As the cursor reads them: those that say nothing are refused, and no others."""
    cursor = Cursor(RowRules(baseline=baseline, scale=False, pass_k=2), Lineage())
    assert used == len(cursor.feed(group_with_rewards(0, rewards)))
    refused = [refusal.reason for refusal in cursor.passed_idle().refused]
    assert ([] if used else ["zero_variance"]) == refused


def test_max_rl_makes_nothing_of_a_group_whose_mean_is_not_above_zero():
    """Its paper has no negative rewards."""
    assert [0, 0, 0] == made([-1.0, 1.0, -1.0], baseline="max_rl")


def test_advantages_of_ones_own_are_refused_unless_they_are_one_finite_number_each(
    tmp_path, monkeypatch
):
    """With the function's name."""
    (tmp_path / "odd.py").write_text("def short(r): return r[1:]\ndef endless(r): return r / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("short", "endless"):
        with (
            np.errstate(divide="ignore", invalid="ignore"),
            pytest.raises(InvalidAdvantages, match=f"odd:{name}"),
        ):
            made([1.0, 0.0], baseline=f"odd:{name}")


@pytest.mark.torch
@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(0, 200), min_size=1, max_size=8),
    longest=st.integers(1, 200),
    part=st.floats(0, 1),
)
def test_overlong_shaping_is_trls(lengths, longest, part):
    """DAPO's equation 13."""
    from trl.rewards import get_soft_overlong_punishment

    buffer = int(longest * part)
    expected = get_soft_overlong_punishment(longest, buffer)([[1] * n for n in lengths])
    shaping = LengthShaping(overlong_tokens=longest, overlong_buffer=buffer)
    found = shaping.shaped(np.zeros(len(lengths)), np.array(lengths))
    assert expected == pytest.approx(found.tolist())


def test_the_shortest_success_gains_half_and_the_longest_loses_half():
    """Kimi k1.5: whoever fails gains nothing from being short."""
    shaping = LengthShaping(length_penalty=1.0)
    rewards, lengths = np.array([1.0, 1.0, 1.0, 0.0, 0.0]), np.array([10, 20, 30, 10, 30])
    assert [1.5, 1.0, 0.5, 0.0, -0.5] == shaping.shaped(rewards, lengths).tolist()
    assert [1.0, 0.0] == shaping.shaped(np.array([1.0, 0.0]), np.array([7, 7])).tolist()


def test_a_length_that_could_not_be_read_costs_nothing():
    """What a sample is worth does not depend on what we refuse."""
    shaping = LengthShaping(overlong_tokens=10, length_penalty=1.0)
    found = shaping.shaped(np.array([1.0, 1.0, 1.0]), np.array([-1, 20, 10]))
    assert [1.0, -0.5, 1.5] == found.tolist()


def test_what_length_costs_comes_before_samples_are_compared():
    """Two wins and a loss: the longer win is worth less than the other one."""
    group = group_with_rewards(0, [1.0, 1.0, 0.0])
    (pointer, episode), *others = group.episodes
    (sequence,) = episode.sequences
    n = sum(span.end - span.start for span in sequence.spans)
    longer = changed(
        sequence, spans=(Span(2, 5),), ids=pack_ids([5, 6, 10, 3, 3]),
        logprobs=pack_floats([-0.5, -0.1, -0.5]),
    )  # fmt: skip
    group = replace(group, episodes=((pointer, changed(episode, sequences=(longer,))), *others))
    settings = TrainerSettings(overlong_tokens=n, scale_advantages="none")
    rules = settings.rules
    rows = rows_of(group, scale=rules.scale, shaping=rules.shaping)
    assert [-1 / 3, 2 / 3, -1 / 3] == pytest.approx([row.advantage for row in rows])
