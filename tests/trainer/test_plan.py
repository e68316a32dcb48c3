"""The plan of a step: every row once, budgets kept, ranks alike; and the tree of a micro-batch."""

from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odradek.trainer.plan.micro_batches import halved, plan
from odradek.trainer.plan.prefix_tree import in_order, pack, shared

lengths = st.integers(1, 9)
row = st.lists(st.integers(0, 2), min_size=1, max_size=9).map(np.array)
rows_of_groups = st.lists(st.tuples(row, st.integers(0, 3)), min_size=1, max_size=14)


def computed(rows):
    """Tokens of a tree of these rows, counted with a dictionary for each token."""
    nodes = set()
    for ids in rows:
        words = [*ids.tolist(), None]
        keys = tuple(pairwise(words))
        nodes |= {keys[:n] for n in range(1, len(keys) + 1)}
    return len(nodes)


@given(rows_of_groups, st.integers(1, 40), st.integers(1, 4))
def test_every_row_is_computed_exactly_once(dealt, budget, ranks):
    """Whatever the budget and however many ranks there are."""
    rows, groups = [ids for ids, _ in dealt], [group for _, group in dealt]
    made = plan(rows, groups, budget=budget, ranks=ranks)
    places = [place for rank in made.ranks for batch in rank for place in batch.rows]
    assert list(range(len(rows))) == sorted(places)


@given(rows_of_groups, st.integers(1, 40), st.integers(1, 4))
def test_all_ranks_have_equally_many_micro_batches(dealt, budget, ranks):
    """And none of them is empty as long as there are rows to cut."""
    rows, groups = [ids for ids, _ in dealt], [group for _, group in dealt]
    made = plan(rows, groups, budget=budget, ranks=ranks)
    assert ranks == len(made.ranks)
    (count,) = {len(rank) for rank in made.ranks}
    batches = list(chain(*made.ranks))
    if any(not batch.rows for batch in batches):
        assert all(len(batch.rows) <= 1 for batch in batches)
        assert len(batches) - len(rows) < ranks
    assert count >= 1


@given(rows_of_groups, st.integers(1, 40), st.integers(1, 4))
def test_no_micro_batch_computes_more_than_the_budget(dealt, budget, ranks):
    """Unless it is a single row, which is longer; and it says how much it computes, or less."""
    rows, groups = [ids for ids, _ in dealt], [group for _, group in dealt]
    for batch in chain(*plan(rows, groups, budget=budget, ranks=ranks).ranks):
        mine = [rows[place] for place in batch.rows]
        assert batch.tokens <= budget or len(mine) == 1
        assert computed(mine) <= batch.tokens


@given(rows_of_groups, st.integers(1, 40), st.integers(1, 4))
def test_the_dearest_come_first_on_each_rank(dealt, budget, ranks):
    """Where memory is too small, that shows at once."""
    rows, groups = [ids for ids, _ in dealt], [group for _, group in dealt]
    for rank in plan(rows, groups, budget=budget, ranks=ranks).ranks:
        costs = [batch.cost for batch in rank]
        assert sorted(costs, reverse=True) == costs


@given(rows_of_groups)
def test_a_group_that_fits_stays_together(dealt):
    """Its rows share their prompt."""
    rows, groups = [ids for ids, _ in dealt], [group for _, group in dealt]
    widest = max(
        computed([ids for ids, one in dealt if one == group]) for group in dict.fromkeys(groups)
    )
    (rank,) = plan(rows, groups, budget=widest).ranks
    for group in set(groups):
        places = {place for place, one in enumerate(groups) if one == group}
        assert 1 == sum(bool(places & set(batch.rows)) for batch in rank)


def test_ranks_have_about_as_much_to_do():
    """The dearest rank has at most one row's cost more than the cheapest."""
    rng = np.random.default_rng(1)
    rows = [np.arange(n) + 10_000 * n for n in rng.integers(100, 4000, size=64)]
    made = plan(rows, range(64), budget=8192, ranks=4)
    costs = [sum(batch.cost for batch in rank) for rank in made.ranks]
    assert max(costs) / min(costs) < 1.1


@given(st.lists(row, min_size=2, max_size=9))
def test_halves_hold_every_row_once(rows):
    """And neither is empty."""
    (rank,) = plan(rows, [0] * len(rows), budget=1000).ranks
    (batch,) = rank
    first, second = halved(rows, batch)
    assert first.rows
    assert second.rows
    assert sorted(batch.rows) == sorted(first.rows + second.rows)


@given(st.lists(row, min_size=1, max_size=12))
def test_each_row_reads_its_own_tokens_along_its_path(rows):
    """And every position is as deep as tokens stand before it."""
    tree = pack(rows)
    for ids, path in zip(rows, tree.paths, strict=True):
        assert ids.tolist() == tree.ids[path].tolist()
        assert list(range(len(ids))) == tree.positions[path].tolist()


@given(st.lists(row, min_size=1, max_size=12))
def test_a_position_sees_exactly_what_stands_before_it_in_its_rows(rows):
    """Nothing of any other row, and nothing behind it."""
    tree = pack(rows)
    at = np.arange(len(tree))
    seen = (at[:, None] >= at[None, :]) & (at[:, None] < tree.ends[None, :])
    expected = np.zeros_like(seen)
    for path in tree.paths:
        for depth, q in enumerate(path):
            expected[q, path[: depth + 1]] = True
    assert expected.tolist() == seen.tolist()


@given(st.lists(row, min_size=1, max_size=12))
def test_every_position_has_one_next_token(rows):
    """Or two rows would want two predictions of one hidden state; and nothing stands twice."""
    tree = pack(rows)
    following = {}
    for ids, path in zip(rows, tree.paths, strict=True):
        for q, word in zip(path.tolist(), [*ids[1:].tolist(), None], strict=True):
            assert word == following.setdefault(q, word)
    assert computed(rows) == len(tree)


@given(st.lists(row, min_size=1, max_size=12))
def test_branches_are_the_tree_from_its_first_position_to_its_last(rows):
    """Each with the tokens that its row is the first to need."""
    tree = pack(rows)
    assert len(tree) == sum(branch.own for branch in tree.branches)
    starts = np.cumsum([0] + [branch.own for branch in tree.branches])[:-1]
    assert starts.tolist() == [branch.start for branch in tree.branches]


@given(st.lists(st.lists(st.integers(0, 2**32 - 1), min_size=1).map(np.array), min_size=1))
@settings(max_examples=50)
def test_rows_are_sorted_by_their_numbers(rows):
    """Not by the bytes of them as this machine writes them."""
    order = in_order(rows)
    assert sorted(ids.tolist() for ids in rows) == [rows[place].tolist() for place in order]


@pytest.mark.parametrize(
    ("before", "after", "count"),
    [
        ([1, 2, 3], [1, 2, 3], 3),
        ([1, 2, 3], [1, 2, 4], 1),
        ([1, 2], [1, 2, 3], 1),
        ([1], [2], 0),
        ([1], [1], 1),
        ([], [1], 0),
    ],
)
def test_what_two_rows_share(before, after, count):
    """One less than they have in common, unless they are the same."""
    assert count == shared(np.array(before, int), np.array(after, int))


@pytest.mark.parametrize("rows", [[], [np.array([], int)]])
def test_a_tree_of_nothing_is_refused(rows):
    """There is nothing to compute."""
    with pytest.raises(ValueError, match="one row or more"):
        pack(rows)
