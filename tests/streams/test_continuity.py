"""Continuity on tokens, held against a slow model that works on lists."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from odradek.schemas.arrays import unpack_floats, unpack_ids
from odradek.schemas.events import Request, VersionSpan
from odradek.streams.stages.continuity import Continuity
from tests.support.schemas.event_builders import turn


def place(*turns, left_out=()):
    """Verdicts and the finished continuity of turns."""
    continuity = Continuity()
    verdicts = [
        continuity.add(one, "superseded" if one.turn_id in left_out else "") for one in turns
    ]
    return verdicts, continuity


def ids(sequence):
    return unpack_ids(sequence.ids).tolist()


def test_a_prompt_that_continues_grows_the_run():
    """One sequence, two sampled spans, log probabilities of those only."""
    verdicts, found = place(turn(seq=0), turn(seq=1, prompt=(1, 2, 3, 9), sampled=(4, 5)))
    (run,) = found.sequences()
    assert ["first", "append"] == verdicts
    assert [1, 2, 3, 9, 4, 5] == ids(run)
    assert [(2, 3), (4, 6)] == [(span.start, span.end) for span in run.spans]
    assert 3 == len(unpack_floats(run.logprobs))
    assert [(1, 2, 3), (1, 4, 6)] == [(v.version, v.start, v.end) for v in run.versions]


@pytest.mark.parametrize(
    ("salt", "versions", "expected"),
    [
        (None, [(7, 0, 4)], [(7, 2, 6)]),
        (None, [], []),
        (None, [(7, 1, 3)], [(7, 3, 5)]),
        (7, [(7, 0, 4)], [(7, 2, 6)]),
        (7, [(8, 0, 4)], [(7, 2, 6)]),
        (7, [(7, 0, 1), (8, 1, 4)], [(7, 2, 6)]),
        (7, [(6, 0, 2), (7, 2, 3), (9, 3, 4)], [(6, 2, 4), (7, 4, 6)]),
        (7, [(0, 0, 4)], [(0, 2, 6)]),
        (7, [], [(7, 2, 6)]),
        (7, [(6, 1, 2)], [(7, 2, 3), (6, 3, 4), (7, 4, 6)]),
        (7, [(9, 1, 2), (6, 3, 4)], [(7, 2, 5), (6, 5, 6)]),
        (7, [(8, 2, 2)], [(7, 2, 6)]),
        (0, [(8, 0, 4)], [(0, 2, 6)]),
        (0, [], [(0, 2, 6)]),
    ],
)
def test_no_token_is_newer_than_the_salt_of_its_call(salt, versions, expected):
    """It may rest on what older weights computed; one of which nobody tells is as old as the salt."""
    spans = tuple(VersionSpan(*one) for one in versions)
    _, found = place(turn(sampled=(3, 4, 5, 6), cache_salt=salt, versions=spans))
    (run,) = found.sequences()
    assert expected == [(v.version, v.start, v.end) for v in run.versions]


def test_each_turn_of_a_run_has_the_versions_of_its_own_salt():
    """A swap between two turns: what the first one computed is not read by the second."""
    _, found = place(
        turn(seq=0, cache_salt=7, versions=(VersionSpan(8, 0, 1),)),
        turn(
            seq=1,
            prompt=(1, 2, 3, 9),
            sampled=(4, 5),
            cache_salt=8,
            versions=(VersionSpan(8, 0, 2),),
        ),
        turn(seq=2, prompt=(1, 2, 3, 9, 4, 5), sampled=(6,), versions=()),
    )
    (run,) = found.sequences()
    assert [(7, 2, 3), (8, 4, 6)] == [(v.version, v.start, v.end) for v in run.versions]


def test_a_prompt_that_continues_an_older_turn_branches():
    """Its tokens up to the fork are trained in the first run only."""
    verdicts, found = place(
        turn(seq=0),
        turn(seq=1, prompt=(1, 2, 3, 9), sampled=(4,)),
        turn(seq=2, prompt=(1, 2, 3, 8), sampled=(5,)),
    )
    assert ["first", "append", "branch"] == verdicts
    assert [(4, 5)] == [(span.start, span.end) for span in found.sequences()[1].spans]
    assert [("branch", 3)] == [(one.reason, one.index) for one in found.breaks]


def test_a_sub_agents_calls_interleave_with_its_parents():
    """Each call is compared with every open run, not only with the last turn."""
    verdicts, found = place(
        turn(seq=0, prompt=(1, 2), sampled=(3,)),
        turn(seq=1, prompt=(7, 7), sampled=(8,)),
        turn(seq=2, prompt=(1, 2, 3, 4), sampled=(5,)),
        turn(seq=3, prompt=(7, 7, 8, 9), sampled=(6,)),
    )
    assert ["first", "rewritten", "append", "append"] == verdicts
    assert [[1, 2, 3, 4, 5], [7, 7, 8, 9, 6]] == [ids(run) for run in found.sequences()]


@pytest.mark.parametrize(
    ("kept", "verdict"), [(2, "retokenized"), (1, "rewritten"), (0, "rewritten")]
)
def test_equal_messages_with_other_tokens_are_retokenized(kept, verdict):
    """The request keeps all of its base's history, but the ids differ from position 2 on."""
    request = Request(base="e1/w1/0", prefix_len=kept, messages=(Raw(b'"more"'),))
    verdicts, found = place(turn(seq=0), turn(seq=1, prompt=(1, 2, 33, 9), request=request))
    assert ["first", verdict] == verdicts
    assert [(verdict, 2)] == [(one.reason, one.index) for one in found.breaks]


@pytest.mark.parametrize(("kept", "verdict"), [(2, "retokenized"), (1, "rewritten")])
def test_a_fork_whose_older_reply_came_out_otherwise_is_retokenized(kept, verdict):
    """Its base has more words than it keeps; those of the turn before that are all there."""
    more = Request(base="e1/w1/0", prefix_len=2, messages=(Raw(b'"more"'),))
    fork = Request(base="e1/w1/1", prefix_len=kept, messages=(Raw(b'"other"'),))
    verdicts, found = place(
        turn(seq=0),
        turn(seq=1, prompt=(1, 2, 3, 9), sampled=(4,), request=more),
        turn(seq=2, prompt=(1, 2, 33, 8), sampled=(5,), request=fork),
    )
    assert ["first", "append", verdict] == verdicts
    assert [(verdict, 2)] == [(one.reason, one.index) for one in found.breaks]


def test_a_call_behind_a_turn_that_is_not_trained_branches():
    """All of that turn's tokens come first, though no sequence holds them."""
    verdicts, _ = place(
        turn(seq=0, prompt=(7, 7), sampled=(8,)),
        turn(seq=1, logprobs=b""),
        turn(seq=2, prompt=(1, 2, 3, 9), sampled=(4,)),
    )
    assert ["first", "no_tokens", "branch"] == verdicts


def test_prompts_are_resolved_as_deltas_on_their_base():
    """prefix_len ids of the base's prompt and completion come first."""
    verdicts, found = place(
        turn(seq=0), turn(seq=1, base="e1/w1/0", prefix=3, prompt=(9,), sampled=(4,))
    )
    assert ["first", "append"] == verdicts
    assert [1, 2, 3, 9, 4] == ids(found.sequences()[0])


@pytest.mark.parametrize(
    "delta", [{"base": "nobody", "prefix": 1}, {"base": "e1/w1/0", "prefix": 9}]
)
def test_an_unknown_base_leaves_a_turn_out(delta):
    """Nothing is guessed: a base that is missing, or shorter than the delta says."""
    verdicts, found = place(turn(seq=0), turn(seq=1, **delta))
    assert ["first", "unknown_base"] == verdicts
    assert {"e1/w1/1": "unknown_base"} == found.untrained_turns
    assert ["unknown_base"] == [one.reason for one in found.breaks]


@pytest.mark.parametrize(
    ("bad", "reason", "verdict"),
    [
        ({"error": "502"}, "error", "untrained"),
        ({"disconnected": True}, "disconnected", "untrained"),
        ({"untrainable": "lengths_differ"}, "lengths_differ", "untrained"),
        ({"sampled": ()}, "no_token_ids", "no_tokens"),
        ({"logprobs": b""}, "no_logprobs", "no_tokens"),
    ],
)
def test_what_cannot_be_trained_is_left_out_with_its_reason(bad, reason, verdict):
    """The turn after it goes on as if it had not been, its tokens as context."""
    verdicts, found = place(
        turn(seq=0),
        turn(seq=1, prompt=(1, 2, 3, 9), **bad),
        turn(seq=2, prompt=(1, 2, 3, 9, 3, 5), sampled=(6,)),
    )
    assert ["first", verdict, "append"] == verdicts
    assert {"e1/w1/1": reason} == found.untrained_turns
    assert [(2, 3), (6, 7)] == [(s.start, s.end) for s in found.sequences()[0].spans]


def test_a_left_out_turn_can_still_be_a_base():
    """Deltas on it resolve."""
    verdicts, _ = place(
        turn(seq=0),
        turn(seq=1, prompt=(1, 2, 3, 9), sampled=(4,)),
        turn(seq=2, base="e1/w1/1", prefix=4, prompt=(8,), sampled=(5,)),
        left_out={"e1/w1/1"},
    )
    assert ["first", "untrained", "append"] == verdicts


@st.composite
def trees(draw):
    """Turns of a random tree: each continues a random earlier one, whole or cut, or none."""
    made: list[tuple[list[int], list[int]]] = []
    small = st.lists(st.integers(0, 2), min_size=1, max_size=3)
    for _ in range(draw(st.integers(1, 8))):
        prompt = list(draw(small))
        if made and draw(st.booleans()):
            parent = made[draw(st.integers(0, len(made) - 1))]
            whole = parent[0] + parent[1]
            keep = draw(st.integers(max(0, len(whole) - 1), len(whole)))
            prompt = whole[:keep] + (prompt if draw(st.booleans()) or not keep else [])
        made.append((prompt, list(draw(small))))
    return made


@settings(max_examples=300, deadline=None)
@given(trees())
def test_random_trees_agree_with_a_model_on_lists(tree):
    """Longest run that is a prefix grows; else a run begins; each sampled token trains once."""
    runs: list[dict] = []
    for number, (prompt, sampled) in enumerate(tree):
        tips = [run for run in runs if prompt[: len(run["ids"])] == run["ids"]]
        run = max(tips, key=lambda one: len(one["ids"])) if tips else {"spans": [], "turns": []}
        if not tips:
            runs.append(run)
        run["ids"] = [*prompt, *sampled]
        run["spans"].append((len(prompt), len(prompt) + len(sampled)))
        run["turns"].append(f"e1/w1/{number}")
    verdicts, found = place(
        *(turn(seq=n, prompt=prompt, sampled=sampled) for n, (prompt, sampled) in enumerate(tree))
    )
    sequences = found.sequences()
    assert [run["ids"] for run in runs] == [ids(sequence) for sequence in sequences]
    assert [run["spans"] for run in runs] == [
        [(span.start, span.end) for span in sequence.spans] for sequence in sequences
    ]
    assert [tuple(run["turns"]) for run in runs] == [one.turn_ids for one in sequences]
    assert len(found.breaks) == len(runs) - 1 == sum(v not in {"first", "append"} for v in verdicts)
    total = sum(len(sampled) for _, sampled in tree)
    assert total == sum(span.end - span.start for one in sequences for span in one.spans)
