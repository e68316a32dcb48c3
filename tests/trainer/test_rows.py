"""Rows, masks, advantages: pure arrays."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from odradek.schemas import arrays
from odradek.schemas.events import Batch, Episode, Pointer, Sequence, Span, VersionSpan
from odradek.trainer.feed.advantages import advantages, zero_variance
from odradek.trainer.feed.rows import (
    LEAST_LOGPROB,
    ROUNDING,
    EpisodeGroup,
    Row,
    fault_of,
    per_turn,
    rows_of,
    spans_of,
    tokens,
)


def episode_of(*sequences, name="e0", reward=1.0):
    return Episode(
        episode_id=name, task_id="t", agent="a", sample=0, group_size=2, reward=reward,
        sequences=sequences,
    )  # fmt: skip


def pointer_of(episode, reward):
    return Pointer(
        episode_id=episode.episode_id, sample=0, topic="rl.episodes.v1", partition=0, offset=0,
        digest="d", reward=reward,
    )  # fmt: skip


def group_with(*pairs, offset=0):
    pointers = tuple(pointer_of(episode, reward) for episode, reward in pairs)
    batch = Batch(task_id="t", group_size=len(pairs), episodes=pointers)
    return EpisodeGroup(offset, batch, tuple(zip(pointers, (e for e, _ in pairs), strict=True)))


def conversation(turns):
    """Turns (environment tokens, sampled tokens) as one sequence, and what it must be."""
    ids, spans, logprobs = [], [], []
    for environment, sampled in turns:
        ids += environment
        spans.append(Span(len(ids), len(ids) + len(sampled)))
        ids += sampled
        logprobs += [-0.5] * len(sampled)
    return Sequence(
        ids=arrays.pack_ids(ids), spans=tuple(spans), logprobs=arrays.pack_floats(logprobs),
        versions=(VersionSpan(3, 0, len(ids)),),
    ), ids  # fmt: skip


words = st.lists(st.integers(0, 200), min_size=1, max_size=6)


@given(st.lists(st.tuples(words, words), min_size=1, max_size=6))
def test_a_merged_row_is_its_turns_in_a_row_and_its_mask_counts_what_was_sampled(turns):
    """Ids concatenate, the mask's sum is the sampled tokens, and each has its log probability."""
    sequence, ids = conversation(turns)
    other = episode_of(conversation([([1], [2])])[0], name="e1")
    row = rows_of(group_with((episode_of(sequence), 1.0), (other, 0.0)))[0]
    assert ids == row.ids.tolist()
    assert sum(len(sampled) for _, sampled in turns) == row.sampled == row.mask.sum()
    assert [token for _, sampled in turns for token in sampled] == row.ids[row.mask].tolist()
    assert (row.logprobs[row.mask] == -0.5).all()
    assert not row.logprobs[~row.mask].any()


def test_a_rewritten_history_makes_two_rows_of_one_sample_with_equal_worth():
    """Continuity that broke is kept apart: nothing is trained in the wrong context."""
    first, _ = conversation([([1, 2], [3])])
    second, _ = conversation([([9, 9], [4, 5])])
    lost = episode_of(conversation([([1], [2])])[0], name="e1")
    rows = rows_of(group_with((episode_of(first, second), 1.0), (lost, 0.0)))
    assert ["e0", "e0", "e1"] == [row.episode_id for row in rows]
    assert [0, 1, 2] == [row.index for row in rows]
    assert rows[0].advantage == rows[1].advantage == pytest.approx(-rows[2].advantage)


def test_the_same_offsets_give_the_same_rows(groups):
    """Rows are a function of the log."""
    again = [row for group in groups for row in rows_of(group)]
    for one, two in zip((row for group in groups for row in rows_of(group)), again, strict=True):
        assert one.ids.tolist() == two.ids.tolist()
        assert one.logprobs.tobytes() == two.logprobs.tobytes()
        assert (one.advantage, one.offset, one.index) == (two.advantage, two.offset, two.index)


def test_a_row_without_sampled_tokens_is_none():
    """The first token of a row has no prediction, so it alone is nothing to train on."""
    only = Sequence(
        ids=arrays.pack_ids([7]), spans=(Span(0, 1),), logprobs=arrays.pack_floats([-1.0])
    )
    assert [] == rows_of(group_with((episode_of(only), 1.0)))
    whole, ids = conversation([([1], [2])])
    (row,) = rows_of(group_with((episode_of(only, whole), 1.0)))
    assert ids == row.ids.tolist()


def test_merging_ten_turns_costs_a_sixth():
    """58,800 tokens as single turns, 9,120 merged, 7,020 without the shared beginning."""
    ids = np.arange(300 + 10 * 30 + 9 * 60)
    mask = np.zeros(len(ids), dtype=bool)
    for turn in range(10):
        mask[300 + 90 * turn : 330 + 90 * turn] = True
    row = Row(ids, mask, np.zeros(len(ids), np.float32), 0.0, 0.0, 1, 1, 0, 0, "e")
    assert 10 == len(list(spans_of(mask)))
    assert 58_800 == 8 * tokens(per_turn(row))
    assert 9_120 == tokens([row] * 8)
    assert 7_020 == 300 + 8 * (len(ids) - 300)


@pytest.mark.parametrize(
    ("baseline", "expected"),
    [("mean", [0.75, -0.25, -0.25, -0.25]), ("median", [1, 0, 0, 0]),
     ("leave_one_out", [1.0, -1 / 3, -1 / 3, -1 / 3])],
)  # fmt: skip
def test_baselines(baseline, expected):
    """Mean, median and the mean of the others."""
    rewards = np.array([1.0, 0, 0, 0])
    assert expected == pytest.approx(advantages(rewards, baseline=baseline, scale=False))
    scaled = advantages(rewards, baseline=baseline)
    assert np.array(expected) / (0.5 + 1e-4) == pytest.approx(scaled)


@given(st.lists(st.floats(-10, 10), max_size=9))
def test_advantages_are_finite_and_centred(rewards):
    """No group, however small or equal, makes a number that is none."""
    for baseline in ("mean", "median", "leave_one_out"):
        found = advantages(np.array(rewards), baseline=baseline)
        assert np.isfinite(found).all()
        if zero_variance(np.array(rewards)):
            assert found == pytest.approx(np.zeros(len(rewards)), abs=1e-6)
    assert advantages(np.array(rewards)).sum() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("versions", "oldest", "newest"),
    [
        ([], None, None),
        ([(3, 0, 6)], 3, 3),
        ([(3, 2, 4), (5, 5, 6)], 3, 5),
        ([(5, 2, 4), (3, 5, 6)], 3, 5),
        ([(5, 2, 4)], None, 5),
        ([(5, 3, 4), (5, 5, 6)], None, 5),
        ([(2, 0, 2), (5, 2, 4), (4, 4, 6)], 4, 5),
        ([(2, 4, 5), (5, 2, 4), (5, 5, 6)], 5, 5),
    ],
)
def test_a_row_is_as_old_as_its_oldest_sampled_token(versions, oldest, newest):
    """Where nobody says of some sampled token which version it is of, nobody knows of the row."""
    sequence = Sequence(
        ids=arrays.pack_ids([1, 2, 3, 4, 5, 6]), spans=(Span(2, 4), Span(5, 6)),
        logprobs=arrays.pack_floats([-0.5] * 3),
        versions=tuple(VersionSpan(*one) for one in versions),
    )  # fmt: skip
    other = episode_of(conversation([([1], [2])])[0], name="e1")
    row = rows_of(group_with((episode_of(sequence), 1.0), (other, 0.0)))[0]
    assert (oldest, newest) == (row.oldest, row.newest)


def row_with(logprobs=(0.0, -0.5), ids=(1, 2), advantage=1.0):
    """A row whose second token was sampled."""
    mask = np.array([False, True])
    told = np.array(logprobs, np.float32)
    return Row(np.array(ids), mask, told, advantage, 0.0, 1, 1, 0, 0, "e")


@pytest.mark.parametrize(
    ("change", "vocabulary", "fault"),
    [
        ({}, 3, ""),
        ({}, 2, "token_ids"),
        ({}, 0, ""),
        ({"logprobs": (0.0, LEAST_LOGPROB)}, 3, ""),
        ({"logprobs": (0.0, LEAST_LOGPROB - 0.01)}, 3, "logprobs"),
        ({"logprobs": (0.0, ROUNDING / 2)}, 3, ""),
        ({"logprobs": (0.0, ROUNDING * 2)}, 3, "logprobs"),
        ({"logprobs": (0.0, np.nan)}, 2, "logprobs"),
        ({"logprobs": (-999.0, -0.5)}, 3, ""),
        ({"advantage": 1e39}, 3, "advantage"),
        ({"advantage": 1e-60}, 3, "advantage"),
        ({"advantage": 0.0}, 3, ""),
    ],
)
def test_numbers_that_would_ruin_a_step_are_named(change, vocabulary, fault):
    """Of tokens that were not sampled no log probability is looked at."""
    assert fault == fault_of(row_with(**change), vocabulary)


def test_what_merging_saves_is_measured_against_a_row_a_turn():
    """Each has the whole prompt of its turn, and trains on that turn alone."""
    sequence, ids = conversation([([1, 2], [3, 4]), ([5], [6])])
    (row,) = rows_of(group_with((episode_of(sequence), 1.0)))
    first, second = per_turn(replace(row, temperatures=np.arange(6, dtype=np.float32)))
    assert (ids[:4], ids) == (first.ids.tolist(), second.ids.tolist())
    assert [False, False, True, True] == first.mask.tolist()
    assert [False] * 5 + [True] == second.mask.tolist()
    assert [0.0, 0.0, -0.5, -0.5] == first.logprobs.tolist()
    assert [0.0] * 5 + [-0.5] == second.logprobs.tolist()
    assert (4, 6) == (len(first.temperatures), len(second.temperatures))


def test_the_rows_of_a_sample_weigh_one_together():
    """With `episode`; with `row` each weighs one."""
    parts = [conversation([([1, n], [3])])[0] for n in range(4)]
    group = group_with((episode_of(*parts), 1.0), (episode_of(parts[0], name="e1"), 0.0))
    assert [0.25] * 4 + [1.0] == [row.weight for row in rows_of(group, weigh="episode")]
    assert [1.0] * 5 == [row.weight for row in rows_of(group)]


def test_a_row_says_where_it_is_from():
    """Its batch's offset and task, its sample's reward as the batch states it."""
    group = group_with((episode_of(conversation([([1], [2])])[0], reward=0.5), 3.0), offset=7)
    (row,) = rows_of(group)
    assert (7, "t", 3.0, 0, 1.0) == (row.offset, row.task_id, row.reward, row.index, row.weight)
