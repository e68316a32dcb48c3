"""Rows of children: further rows of their parent's sample, with an advantage of their own kind."""

import pytest
from msgspec.structs import replace as changed

from odradek.schemas.arrays import pack_floats, pack_ids
from odradek.schemas.events import ChildEpisode, Sequence, Span, VersionSpan
from odradek.trainer.feed.cursor import Cursor, Position
from odradek.trainer.feed.lineage import Lineage
from odradek.trainer.feed.rows import EpisodeGroup, rows_of
from odradek.trainer.feed.rules import RowRules, why_not
from odradek.trainer.feed.shaping import LengthShaping
from tests.support.trainer.played_groups import group_with_rewards


def sampled(name, tokens=1):
    """A child's sequence of two tokens of prompt and so many sampled ones."""
    return Sequence(
        ids=pack_ids([1, 2, *[3] * tokens]),
        spans=(Span(2, 2 + tokens),),
        logprobs=pack_floats([-0.5] * tokens),
        versions=(VersionSpan(1, 0, 2 + tokens),),
        child=name,
    )


def family(rewards, children, **batch):
    """A group whose samples have children, each a pair of its fields and its tokens."""
    group = group_with_rewards(0, rewards)
    episodes = []
    for (pointer, episode), own in zip(group.episodes, children, strict=True):
        many = [
            ChildEpisode(episode_id=f"{pointer.episode_id}/{n}", parent=pointer.episode_id,
                  **({"agent": "answerer"} | fields))
            for n, (fields, _) in enumerate(own)
        ]  # fmt: skip
        runs = [sampled(one.episode_id, n) for one, (_, n) in zip(many, own, strict=True)]
        episodes.append(
            (pointer, changed(episode, reward=pointer.reward, children=tuple(many),
                              sequences=(*episode.sequences, *runs)))
        )  # fmt: skip
    return EpisodeGroup(0, changed(group.batch, **batch), tuple(episodes))


def advantages(group, **rules):
    """Of each row, parents' and children's apart."""
    rows = rows_of(group, scale=False, **rules)
    index = [sequence.child for _, episode in group.episodes for sequence in episode.sequences]
    pairs = list(zip(index, rows, strict=True))
    return (
        [row.advantage for child, row in pairs if not child],
        [row.advantage for child, row in pairs if child],
    )


def test_a_child_worth_what_its_sample_is_has_its_samples_advantage():
    """However many a sample has: the samples alone are compared."""
    group = family([1.0, 0.0], [[({"reward": 1.0}, 1)] * 3, [({"reward": 0.0}, 1)]])
    assert ([0.5, -0.5], [0.5, 0.5, 0.5, -0.5]) == advantages(group)


def test_children_with_a_worth_of_their_own_are_compared_by_agent():
    """Neither with their parents nor with another agent's children."""

    def own(reward, agent):
        return ({"reward": reward, "own": 1.0, "share": 0.0, "agent": agent}, 1)

    group = family([1.0, 0.0], [[own(4.0, "a"), own(9.0, "b")], [own(2.0, "a")]])
    assert ([0.5, -0.5], [1.0, 0.0, -1.0]) == advantages(group)


def test_a_batch_that_was_scored_again_changes_a_childs_share_of_it():
    """A pointer's reward is what counts; the record keeps what was written first."""
    sums = {"own": 1.0, "share": 0.5}
    group = family([1.0, 0.0], [[({"reward": 1.5, **sums}, 1)], [({"reward": 0.0, **sums}, 1)]])
    pointers = tuple(changed(one, reward=2.0 * one.reward) for one in group.batch.episodes)
    again = tuple((p, episode) for p, (_, episode) in zip(pointers, group.episodes, strict=True))
    group = EpisodeGroup(0, changed(group.batch, episodes=pointers), again)
    assert ([1.0, -1.0], [1.0, -1.0]) == advantages(group)


def test_what_length_costs_is_taken_of_a_childs_own_tokens():
    """The longer of two equal children is worth less."""
    own = {"reward": 1.0, "own": 1.0, "share": 0.0}
    group = family([1.0, 0.0], [[(own, 2)], [(own, 6)]])
    _, made = advantages(group, shaping=LengthShaping(overlong_tokens=5))
    assert [0.5, -0.5] == made


def test_a_samples_rows_weigh_one_together_its_childrens_among_them():
    """So group size and weight do not change with how many agents were asked."""
    group = family([1.0, 0.0], [[({"reward": 1.0}, 1)] * 3, []])
    assert [0.25] * 4 + [1.0] == [row.weight for row in rows_of(group, weigh="episode")]


def test_equal_samples_whose_children_differ_are_trained_on():
    """A batch says so; without, equal samples are passed as before."""
    own = {"own": 1.0, "share": 0.0}
    children = [[({"reward": 1.0, **own}, 1)], [({"reward": 0.0, **own}, 1)]]
    group = family([1.0, 1.0], children, children_differ=True)
    cursor = Cursor(RowRules(rows_per_step=4), Lineage(), Position())
    assert [0.0, pytest.approx(0.707, abs=1e-3), 0.0, pytest.approx(-0.707, abs=1e-3)] == [
        row.advantage for row in cursor.feed(group)
    ]
    assert "zero_variance" == why_not(changed(group.batch, children_differ=False))
