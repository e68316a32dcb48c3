"""How an episode's sequences say at which temperature, and from what, each token was drawn."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace

from odradek.schemas import codec
from odradek.schemas.events import Episode, Reply, Request, Span
from odradek.schemas.sampling import NEUTRAL
from odradek.streams.stages.continuity import Continuity
from tests.support.schemas.event_builders import turn

SETTLED = {"temperature": 1.0, **NEUTRAL}


def asked(sampling, base=None):
    """A request that records this."""
    return Request(base=base or "", sampling=sampling, messages=(Raw(b'"hi"'),))


def drawn(*turns):
    """Of each span its temperature, what altered it, and whether it was truncated."""
    continuity = Continuity()
    for one in turns:
        continuity.add(one)
    return [
        (span.temperature, span.altered_by, span.truncated)
        for sequence in continuity.sequences()
        for span in sequence.spans
    ]


def line(*samplings):
    """Turns of one conversation, each on the one before, that record these."""
    ids, told = [1], []
    for seq, sampling in enumerate(samplings):
        base = f"e1/w1/{seq - 1}" if seq else ""
        told.append(turn(seq=seq, prompt=tuple(ids), sampled=(3,), request=asked(sampling, base)))
        ids += [3, 9]
    return told


def test_spans_of_one_sequence_keep_their_own_sampling():
    """Turns are merged into one run of tokens; how each was drawn is not."""
    cold, cut = {**SETTLED, "temperature": 0.3}, {**SETTLED, "top_p": 0.9}
    assert [(1.0, "", False), (0.3, "", False), (1.0, "top_p", False), (0.0, "", False)] == drawn(
        *line(SETTLED, cold, cut, {**SETTLED, "temperature": 0})
    )


def test_a_turn_that_says_nothing_was_sampled_as_its_base():
    """However long the conversation is since that was said."""
    warm = {**SETTLED, "temperature": 0.7, "min_p": 0.1}
    assert [(0.7, "min_p", False)] * 3 + [(1.0, "", False)] * 2 == drawn(
        *line(warm, {}, {}, SETTLED, {})
    )


def test_a_turn_that_is_left_out_can_say_it_for_later_ones():
    """As it can be the base of their prompts."""
    first, second = line({**SETTLED, "temperature": 0.7}, {})
    continuity = Continuity()
    continuity.add(first, "superseded")
    continuity.add(second)
    assert 0.7 == continuity.sequences()[0].spans[0].temperature


@pytest.mark.parametrize("old", [{"temperature": 0.3}, {"top_p": 0.9, "temperature": 0.5}])
def test_what_an_old_proxy_left_out_is_unknown(old):
    """It recorded what the client said, call by call: no base speaks for the next turn."""
    assert (None, "", False) == drawn(*line(old, {}))[1]


def test_an_unknown_base_says_nothing():
    """Its record is missing, and with it the episode is incomplete."""
    (only,) = drawn(turn(request=asked({}, "e1/w1/99")))
    assert (None, "", False) == only


@pytest.mark.parametrize(
    ("reason", "sampling", "sampled", "truncated"),
    [
        ("length", {}, 1, True), ("LENGTH", {}, 1, True), ("max_tokens", {}, 1, True),
        ("MAX_TOKENS", {}, 1, True), ("max_output_tokens", {}, 1, True),
        ("model_length", {}, 1, True), ("stop", {}, 1, False), (None, {}, 1, False),
        ("stop", {"max_tokens": 4}, 4, False), ("eos", {}, 1, False),
        # Parsers put a word of their own over the limit's.
        ("tool_calls", {}, 4, False), ("tool_calls", {"max_tokens": 4}, 4, True),
        ("tool_calls", {"max_tokens": 5}, 4, False),
        ("function_call", {"max_completion_tokens": 4}, 4, True),
        ("tool_calls", {"max_completion_tokens": 5, "max_tokens": 4}, 4, False),
        ("tool_calls", {"max_tokens": None}, 4, False), ("tool_calls", {"max_tokens": "4"}, 4, True),
    ],
)  # fmt: skip
def test_a_reply_that_was_cut_by_length_says_so(reason, sampling, sampled, truncated):
    """In the words of whatever engine; the agent's dialect has its own."""
    only = turn(sampled=[3] * sampled, request=asked({**SETTLED, **sampling}))
    reply = Reply(message=only.reply.message, finish_reason=reason)
    assert [(1.0, "", truncated)] == drawn(replace(only, reply=reply))


def test_the_limit_of_a_base_holds_for_a_turn_that_says_nothing():
    """It is a part of its sampling."""
    first, second = line({**SETTLED, "max_tokens": 1}, {})
    reply = Reply(message=second.reply.message, finish_reason="tool_calls")
    assert [False, True] == [cut for *_, cut in drawn(first, replace(second, reply=reply))]


def test_old_spans_decode_and_old_readers_pass_over_what_is_new():
    """A span is a list: longer ones are read as far as they are known."""
    old = b'{"type":"episode","episode_id":"e","task_id":"t","agent":"a","sample":0,"group_size":1,'
    old += b'"sequences":[{"ids":"AQAAAAIAAAA=","spans":[[1,2]],"logprobs":"AAAAvw=="}]}'
    (sequence,) = codec.decode(old, Episode).sequences
    assert (Span(1, 2),) == sequence.spans
    assert (None, "", False) == (
        Span(1, 2).temperature,
        Span(1, 2).altered_by,
        Span(1, 2).truncated,
    )


SAID = st.one_of(
    st.just({}),
    st.builds(
        lambda warm, more: {**SETTLED, "temperature": warm, **more},
        st.sampled_from([0, 0.3, 0.7, 1.0]),
        st.sampled_from([{}, {"top_p": 0.9}, {"tool_choice": "required"}, {"stop": ["x"]}]),
    ),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(SAID, st.integers(-1, 5)), min_size=1, max_size=6))
def test_each_sampled_token_has_the_sampling_of_its_turn(told):
    """Held against a model that follows the bases by hand, over random trees of turns."""
    ids, saying, turns, expected = {}, {}, [], []
    for seq, (said, wanted) in enumerate(told):
        base = f"e1/w1/{wanted}" if 0 <= wanted < seq else ""
        prompt = [*ids.get(base, [seq + 100]), 9]
        name = f"e1/w1/{seq}"
        turns.append(turn(seq=seq, prompt=prompt, sampled=[seq], request=asked(said, base)))
        ids[name] = [*prompt, seq]
        saying[name] = said or saying.get(base, {})
        expected.append((seq, saying[name].get("temperature")))
    continuity = Continuity()
    for one in turns:
        continuity.add(one)
    found = []
    for sequence in continuity.sequences():
        for span, name in zip(sequence.spans, sequence.turn_ids, strict=True):
            found.append((int(name.rpartition("/")[2]), span.temperature))
            wants = saying[name]
            bent = next(
                (n for n in ("top_p", "tool_choice") if wants.get(n, 1) != NEUTRAL.get(n, 1)), ""
            )
            assert bent == span.altered_by
    assert sorted(expected) == sorted(found, key=lambda pair: pair[0])
