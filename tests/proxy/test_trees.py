"""Random trees of calls, on the wire and as sequences, held against a model on lists."""

from hypothesis import HealthCheck, given, settings

from odradek.schemas.arrays import unpack_floats, unpack_ids
from odradek.schemas.events import Episode
from odradek.streams.stages.assembler import ASSEMBLE
from tests.support.proxy.call_trees import recorded, trees
from tests.support.schemas.event_builders import opened, reward, sealed, tell

from .conftest import whole_messages, whole_prompts

many = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def common(left, right):
    """How many entries two lists share from their beginning."""
    n = 0
    while n < min(len(left), len(right)) and left[n] == right[n]:
        n += 1
    return n


def forgotten(call, calls):
    """Whether another sample with the very same tokens was gone on with: its reply stays, then."""
    return any(
        one.prompt[: len(call.whole)] == call.whole
        and one.said[: len(call.said)] == call.said
        and one.said[len(call.said) : len(call.said) + 1] not in {(), (call.reply,)}
        for one in calls
    )


@many
@given(trees())
def test_deltas_hold_each_prompt_and_message_and_write_what_is_shared_once(tree):
    """Every turn is rebuilt exactly; what is written is what no earlier turn begins with."""
    calls, turns = recorded(tree)
    messages, prompts = whole_messages(turns), whole_prompts(turns)
    for place, (call, turn) in enumerate(zip(calls, turns, strict=True)):
        said = [one.message for one in call.said]
        assert said == messages[turn.turn_id]
        earlier = [one for one in calls[:place] if one.base]
        new = [
            len(said) - max((common(said, one.words) for one in known), default=0)
            for known in (earlier, [one for one in earlier if not forgotten(one, earlier)])
        ]
        assert new[0] <= len(turn.request.messages) <= new[1]
        if call.fate == "failed":
            continue
        assert call.prompt == unpack_ids(prompts[turn.turn_id]).tolist()
        shared = max((common(call.prompt, one.whole) for one in earlier), default=0)
        assert len(call.prompt) - shared == len(turn.prompt.ids) // 4


def assembled(turns):
    """The episode that the assembler makes of turns."""
    out, letters = tell(ASSEMBLE, [opened(), *turns, reward(), sealed(n=len(turns), writer="w")])
    assert [] == letters
    (episode,) = [event for event in out if isinstance(event, Episode)]
    return episode


@many
@given(trees())
def test_each_sampled_token_trains_once_behind_exactly_what_the_model_saw(tree):
    """With its own log probability; of cut, failed and unsure calls none does."""
    calls, turns = recorded(tree)
    episode = assembled(turns)
    trained = {}
    for run in episode.sequences:
        ids, logprobs = unpack_ids(run.ids).tolist(), unpack_floats(run.logprobs).tolist()
        assert len(run.turn_ids) == len(run.spans)
        for turn_id, span in zip(run.turn_ids, run.spans, strict=True):
            assert turn_id not in trained
            sampled, logprobs = logprobs[: span.end - span.start], logprobs[span.end - span.start :]
            trained[turn_id] = ids[: span.start], ids[span.start : span.end], sampled
        assert [] == logprobs
    expected = {
        call.turn_id: (call.prompt, call.sampled, [-token / 8 for token in call.sampled])
        for call in calls
        if call.trained
    }
    assert expected == trained
    assert {call.turn_id for call in calls if not call.trained} == set(episode.untrained_turns)


def breaks_of(calls):
    """Each break by the model: turn, reasons that are right, and first differing index."""
    found, tips, trained, known, before = [], [], [], [], []
    for call in calls:
        if call.trained:
            continued = [tip for tip in tips if call.prompt[: len(tip)] == tip]
            if continued:
                tips.remove(max(continued, key=len))
            elif trained:
                index = max(common(call.prompt, one.whole) for one in trained)
                kept = [one for one in before if not forgotten(one, before)]
                right = {reason(call, known, before), reason(call, known, kept)}
                found.append((call.turn_id, right, index))
            tips.append(call.whole)
            trained.append(call)
        elif call.fate == "unsure":
            found.append((call.turn_id, {"no_tokens"}, 0))
        if call.fate != "failed":
            known.append(call)
        if call.base:
            before.append(call)
    return found


def reason(call, known, before):
    """Why no sequence ends where this prompt goes on."""
    if any(
        call.prompt[: len(one.whole)] == one.whole
        or (one.trained and one.whole[: len(call.prompt)] == call.prompt)
        for one in known
    ):
        return "branch"
    said = [one.message for one in call.said]
    spoken = any(said[: len(one.words)] == one.words for one in before)
    return "retokenized" if spoken else "rewritten"


@many
@given(trees())
def test_each_break_has_its_reason_and_the_first_index_that_differs(tree):
    """And there is none but where a sequence begins, and for turns without tokens."""
    calls, turns = recorded(tree)
    episode = assembled(turns)
    told = [(one.turn_id, one.reason, one.index) for one in episode.breaks]
    expected = breaks_of(calls)
    assert [(name, index) for name, _, index in expected] == [(one[0], one[2]) for one in told]
    for (_, right, _), (_, named, _) in zip(expected, told, strict=True):
        assert named in right
    begun = sum(named != "no_tokens" for _, named, _ in told)
    assert len(episode.sequences) == begun + bool(episode.sequences)
