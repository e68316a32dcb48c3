"""Which tokens of a sequence are trained on, at which temperature, and what is refused."""

import numpy as np
import pytest
from msgspec.structs import replace

from odradek.schemas import arrays
from odradek.schemas.events import Sequence, Span
from odradek.trainer.feed.cursor import Cursor
from odradek.trainer.feed.lineage import Lineage
from odradek.trainer.feed.rollout_worker import ListedGroups, LogRolloutWorker
from odradek.trainer.feed.rows import EpisodeGroup, per_turn, rows_of
from odradek.trainer.feed.rules import RowRules
from odradek.trainer.feed.sampling import Take, drawn_of
from odradek.trainer.settings import TrainerSettings
from tests.support.trainer.played_groups import group_with_rewards

FULL = Span(2, 4, 1.0)
UNFIT = [
    Span(5, 7, 1.0, "top_p"), Span(5, 7, 0.7, "tool_choice"), Span(5, 7, 0.0), Span(5, 7, 0.049),
    Span(5, 7, -1.0), Span(5, 7, None, "temperature"), Span(5, 7, None, "logit_bias"),
]  # fmt: skip


def sequence(*spans):
    """Ten tokens, some of them sampled."""
    n = sum(span.end - span.start for span in spans)
    return Sequence(
        ids=arrays.pack_ids(list(range(10))), spans=spans, logprobs=arrays.pack_floats([-0.5] * n)
    )


def places(mask):
    return np.flatnonzero(mask).tolist()


@pytest.mark.parametrize("span", UNFIT, ids=str)
def test_what_was_not_drawn_from_all_tokens_is_masked(span):
    """Its tokens stay as context; the rest of the sequence is trained on, and they are counted."""
    drawn = drawn_of(sequence(FULL, span, Span(8, 9, 0.5)), 10)
    assert [2, 3, 8] == places(drawn.trained)
    assert ("", 2) == (drawn.unfit, drawn.altered)


@pytest.mark.parametrize("span", UNFIT, ids=str)
def test_a_sequence_of_nothing_else_is_refused(span):
    """By name; its row keeps its mask, so that it is one among the rows of its batch."""
    drawn = drawn_of(sequence(span), 10)
    assert ("sampling", [5, 6]) == (drawn.unfit, places(drawn.trained))


@pytest.mark.parametrize(("coldest", "unfit"), [(0.05, ""), (0.0499, "sampling")])
def test_the_bound_of_temperatures_is_itself_warm_enough(coldest, unfit):
    """Below it all probabilities are 0 or 1."""
    assert unfit == drawn_of(sequence(Span(2, 4, coldest)), 10).unfit


def test_each_token_has_the_temperature_of_its_reply():
    """What nobody recorded has that of the settings; tokens that nobody sampled have none."""
    drawn = drawn_of(sequence(Span(1, 3, 0.7), Span(4, 5), Span(6, 7, 2.0)), 10, Take(0.9))
    assert [1, 0.7, 0.7, 1, 0.9, 1, 2, 1, 1, 1] == pytest.approx(drawn.temperatures.tolist())
    assert np.float32 == drawn.temperatures.dtype


def test_the_first_token_of_a_sequence_has_no_prediction():
    """Nor does it count as one that was left out."""
    assert 0 == len(places(drawn_of(sequence(Span(0, 1, 1.0)), 10).trained))
    bent = drawn_of(sequence(Span(0, 2, 1.0, "top_p"), Span(3, 4)), 10)
    assert ([3], 1) == (places(bent.trained), bent.altered)


CUT = Span(5, 7, 1.0, "", True)


@pytest.mark.parametrize(
    ("spans", "truncated", "trained", "unfit"),
    [
        ((FULL, CUT), "train", [2, 3, 5, 6], ""),
        ((FULL, CUT), "mask", [2, 3], ""),
        ((FULL, CUT), "refuse", [2, 3, 5, 6], "truncated"),
        ((CUT,), "train", [5, 6], ""),
        ((CUT,), "mask", [5, 6], "truncated"),
        ((CUT,), "refuse", [5, 6], "truncated"),
        ((FULL,), "refuse", [2, 3], ""),
        ((Span(2, 4, 1.0, "top_p", True), CUT), "mask", [2, 3, 5, 6], "sampling"),
        ((Span(2, 4, 1.0, "top_p", True), FULL), "train", [2, 3], ""),
    ],
)
def test_what_becomes_of_replies_that_were_cut_by_length(spans, truncated, trained, unfit):
    """Trained on, masked, or refused with their whole sequence; counted in each case."""
    spans = (
        sorted(spans, key=lambda span: span.start)
        if len({s.start for s in spans}) > 1
        else spans[-1:]
    )
    drawn = drawn_of(sequence(*spans), 10, Take(truncated=truncated))
    assert (trained, unfit) == (places(drawn.trained), drawn.unfit)
    assert sum(span.truncated for span in spans) == drawn.truncated


def with_span(group, sample, **more):
    """A group of which one sample's reply was sampled so."""
    episodes = list(group.episodes)
    pointer, episode = episodes[sample]
    (sequence,) = episode.sequences
    spans = tuple(replace(span, **more) for span in sequence.spans)
    episodes[sample] = (pointer, replace(episode, sequences=(replace(sequence, spans=spans),)))
    return EpisodeGroup(group.offset, group.batch, tuple(episodes))


@pytest.mark.parametrize(
    ("more", "truncated", "reason"),
    [
        ({"altered_by": "top_p"}, "train", "sampling"), ({"temperature": 0.0}, "train", "sampling"),
        ({"truncated": True}, "refuse", "truncated"), ({"truncated": True}, "mask", "truncated"),
    ],
)  # fmt: skip
def test_a_refused_sample_is_named_and_still_a_part_of_its_groups_baseline(more, truncated, reason):
    """What the others are worth does not depend on what is refused."""
    group = group_with_rewards(0, [1.0, 0.0, 0.0, 0.0])
    rules = RowRules(rows_per_step=3, take=Take(truncated=truncated))
    consumption = Cursor(rules, Lineage())
    rows = consumption.feed(with_span(group, 0, **more))
    assert rows_of(group)[1].advantage == rows[0].advantage < 0
    (refusal,) = consumption.finish_step().refused
    assert (reason, "e0-0", 0) == (refusal.reason, refusal.episode_id, refusal.row)


def test_a_step_counts_replies_that_were_cut_and_tokens_that_were_left_out():
    """Of the rows that it used."""
    group = with_span(group_with_rewards(0, [1.0, 0.0]), 0, truncated=True)
    pointer, episode = group.episodes[1]
    (one,) = episode.sequences
    two = replace(one, spans=(Span(2, 3, 1.0, "top_k"), Span(3, 4, 1.0)))
    episodes = (group.episodes[0], (pointer, replace(episode, sequences=(two,))))
    consumption = Cursor(RowRules(rows_per_step=2), Lineage())
    consumption.feed(EpisodeGroup(0, group.batch, episodes))
    passed = consumption.finish_step()
    assert (1, 1) == (passed.truncated, passed.altered)


def test_a_sequence_that_nobody_can_train_on_takes_no_weight_from_the_others():
    """An agent's side calls at temperature 0 do not halve what its episode teaches."""
    group = group_with_rewards(0, [1.0, 0.0])
    pointer, episode = group.episodes[0]
    (one,) = episode.sequences
    cold = replace(one, spans=(Span(2, 4, 0.0),))
    episodes = ((pointer, replace(episode, sequences=(one, cold, one))), group.episodes[1])
    rows = rows_of(EpisodeGroup(0, group.batch, episodes), weigh="episode")
    assert [(0.5, ""), (0.5, "sampling"), (0.5, ""), (1, "")] == [
        (row.weight, row.unfit) for row in rows
    ]


def test_rows_of_single_turns_keep_their_temperatures():
    """They are the beginning of the merged row's."""
    group = group_with_rewards(0, [1.0, 0.0])
    row = rows_of(with_span(group, 0, temperature=0.7))[0]
    assert [0.7, 0.7] == pytest.approx(per_turn(row)[0].temperatures[2:4].tolist())


@pytest.mark.parametrize("value", [0, 0.04, -1, "inf", "nan"])
def test_a_temperature_that_nothing_can_be_trained_at_is_refused(value):
    """At the start, with the setting's name."""
    with pytest.raises(ValueError, match="temperature"):
        TrainerSettings(temperature=value)


def test_the_settings_reach_the_rules():
    """Both of them."""
    rules = TrainerSettings(temperature=0.7, truncated="mask").rules
    assert Take(temperature=0.7, truncated="mask") == rules.take


def test_the_log_names_each_field_that_bends_once(caplog):
    """With what to do about it; the ledger says `sampling`."""
    group = group_with_rewards(0, [1.0, 0.0, 0.5])
    for sample, more in enumerate(
        ({"altered_by": "top_p"}, {"altered_by": "top_p"}, {"temperature": 0.0})
    ):
        group = with_span(group, sample, **more)
    feed = LogRolloutWorker(ListedGroups([group, group]), Cursor(RowRules(), Lineage()), ahead=9)
    with caplog.at_level("WARNING", logger="odradek"):
        feed._run()
    assert ["top_p", "temperature"] == [
        record.args[0] for record in caplog.records if "not trained on" in record.msg
    ]
    assert "ODRADEK_PROXY_SAMPLING=force" in caplog.text
