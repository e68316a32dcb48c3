"""Rows that were drawn again: what they weigh, how old they may be, and how many a step takes."""

from dataclasses import replace

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from odradek.schemas.events import Mixed
from odradek.trainer.feed.cursor import Cursor, Position
from odradek.trainer.feed.lineage import Lineage
from odradek.trainer.feed.rows import rows_of
from odradek.trainer.feed.rules import RowRules
from odradek.trainer.step.packing import tensors_of, totals_of
from tests.support.trainer.played_groups import group_with_rewards

RULES = RowRules(rows_per_step=4, max_staleness=1000, fresh_share=0.5)


def mixed(offset, source, *, uses=0, weight=1.0, version=1, rewards=(0.0, 1.0)):
    """A group of a mixed topic: batch `source`, fresh or drawn again."""
    group = group_with_rewards(source, rewards, version=version)
    pointers = [
        msgspec.structs.replace(pointer, uses=uses, weight=weight) for pointer, _ in group.episodes
    ]
    batch = msgspec.structs.replace(
        group.batch,
        episodes=tuple(pointers),
        origin=f"rl.batches.v1/0/{source}" if uses else "",
        mixed=Mixed(batch=source, batches=99, steps=7),
    )
    episodes = zip(pointers, (episode for _, episode in group.episodes), strict=True)
    return replace(group, offset=offset, batch=batch, episodes=tuple(episodes))


def refused(cursor, groups):
    """Reasons, by offset and row, of what is refused of groups; None for what is taken."""
    found = {}
    for group in groups:
        taken = {row.index for row in cursor.feed(group)}
        found |= {(group.offset, index): None for index in taken}
    for entry in cursor.passed_idle().refused:
        found[entry.offset, entry.row] = entry.reason
    return found


def test_no_more_than_its_share_of_a_step_was_drawn_again():
    """Of four rows at least two are fresh; the next step counts anew."""
    groups = [mixed(0, 0, uses=1), mixed(1, 1, uses=1), mixed(2, 2), mixed(3, 3, uses=1)]
    found = refused(Cursor(RULES, Lineage()), groups)
    taken = {(0, 0), (0, 1), (2, 0), (2, 1), (3, 0), (3, 1)}
    assert taken == {at for at, why in found.items() if why is None}
    assert {"fresh_share"} == {found[1, 0], found[1, 1]}


def test_no_step_has_a_row_twice():
    """Neither a fresh one and its repeat, nor two repeats; a later step may have it again."""
    rules = replace(RULES, rows_per_step=6, fresh_share=0.0)
    groups = [mixed(0, 0), mixed(1, 0, uses=1), mixed(2, 1, uses=1), mixed(3, 1, uses=2)]
    groups += [mixed(4, 4), mixed(5, 1, uses=3)]
    found = refused(Cursor(rules, Lineage()), groups)
    assert {"repeated"} == {found[at] for at in ((1, 0), (1, 1), (3, 0), (3, 1))}
    assert {None} == {found[at] for at in ((0, 0), (2, 0), (4, 0), (5, 0), (5, 1))}


def test_rows_that_were_drawn_again_have_a_limit_of_staleness_of_their_own():
    """Both are 10 steps old."""
    rules = replace(RULES, max_staleness=4, max_staleness_replayed=20, fresh_share=0.0)
    lineage = Lineage({1: 0}, fixed=True)
    cursor = Cursor(rules, lineage, Position(step=10))
    found = refused(cursor, [mixed(0, 0), mixed(1, 1, uses=1)])
    assert "stale" == found[0, 0]
    assert found[1, 0] is None


def test_without_importance_weights_nothing_that_was_drawn_again_is_trained_on():
    """A clip alone does not correct for another sampler."""
    cursor = Cursor(replace(RULES, corrected=False), Lineage())
    found = refused(cursor, [mixed(0, 0), mixed(1, 1, uses=1)])
    assert found[0, 0] is None
    assert "uncorrected" == found[1, 0]


def test_a_step_says_which_batches_it_used_and_how_far_the_fresh_ones_are_passed():
    """By their offsets on `rl.batches.v1`, with the mean of |advantage| for the sampler."""
    rules = replace(RULES, fresh_share=0.0, scale=False)
    cursor = Cursor(rules, Lineage())
    for group in (mixed(0, 3), mixed(1, 1, uses=1), mixed(2, 4)):
        cursor.feed(group)
    passed = cursor.finish_step()
    assert [(0, 3, 0.5), (1, 1, 0.5)] == [(u.offset, u.source, u.advantage) for u in passed.used]
    assert 4 == passed.source
    assert 5 == cursor.passed_idle().source


def test_what_a_row_weighs_multiplies_its_share_and_divides_nobodys():
    """Half the importance is half the loss, and the size of the step stays what it is."""
    (whole, *_), (half, *_) = (rows_of(mixed(0, 0, uses=1, weight=w)) for w in (1.0, 0.5))
    assert totals_of([whole]) == totals_of([half])
    cpu = torch.device("cpu")
    assert [1.0, 0.5] == tensors_of([whole, half], cpu).weights.tolist()
    assert [True, 0.5] == [half.replayed, half.importance]


kinds = st.lists(
    st.tuples(st.integers(0, 6), st.booleans(), st.sampled_from([(0.0, 1.0), (0.0, 1.0, 1.0)])),
    max_size=20,
)


@settings(deadline=None, max_examples=60)
@given(kinds, st.integers(1, 5))
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_run_that_is_resumed_refuses_and_uses_the_same(share, told, cut):
    """A position is that of a step, so what a step holds already is nothing there."""
    rules = replace(RULES, fresh_share=share, max_staleness_replayed=1000)
    groups = [
        mixed(offset, source if old else 100 + offset, uses=int(old), rewards=rewards)
        for offset, (source, old, rewards) in enumerate(told)
    ]

    def steps(position, until):
        cursor, found, waiting = Cursor(rules, Lineage(), position), [], []
        for group in groups[position.offset :]:
            waiting += cursor.feed(group)
            while len(waiting) >= rules.rows_per_step and len(found) < until:
                used, waiting = waiting[: rules.rows_per_step], waiting[rules.rows_per_step :]
                found.append((used, cursor.finish_step(), cursor.position))
        return found

    whole = steps(Position(), 99)
    first = steps(Position(), cut)
    rest = steps(first[-1][2], 99) if first else []
    parts = first + rest if first else whole
    assert [step[1:] for step in whole] == [step[1:] for step in parts]
    for rows, _, _ in whole:
        assert sum(row.replayed for row in rows) <= rules.rows_per_step * (1 - share)
        keys = [(row.episode_id, row.index) for row in rows if row.replayed]
        assert len(keys) == len({*keys})
