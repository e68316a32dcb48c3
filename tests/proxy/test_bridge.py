"""`continuation=bridge`: what was said keeps its ids, and only what is new is rendered."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odradek.proxy.episodes.history import ReplyEnd
from odradek.proxy.episodes.prefix_reuse import PromptSource, Renderings, bridge, ends
from odradek.proxy.wire.reply import CapturedReply
from odradek.schemas.arrays import pack_ids, unpack_ids
from odradek.schemas.events import Completion, Continuation
from odradek.streams.stages.continuity import Continuity
from tests.support.engines.stub_engine import said_ids, tool_call

from .conftest import END, ROLES, prompt_ids, whole_prompts

HI = {"role": "user", "content": "hi"}
MORE = {"role": "user", "content": "more"}
BRIDGED = Continuation(mode="bridge")


def rendered(reason, index=None):
    return Continuation(mode="render", reason=reason, index=index)


def trimming(messages, *, answer=True):
    """A template that drops the blanks at the ends of what was said."""
    said = [
        {**m, "content": m["content"].strip()} if isinstance(m.get("content"), str) else m
        for m in messages
    ]
    return prompt_ids(said, answer=answer)


def forgetting(messages, *, answer=True):
    """A template that drops a reply's reasoning once a user speaks after it."""
    last = max(place for place, message in enumerate(messages) if message["role"] == "user")
    said = [
        {**message, "reasoning": None} if place < last else message
        for place, message in enumerate(messages)
    ]
    return prompt_ids(said, answer=answer)


def open_ended(messages, *, answer=True):
    """A template that writes no end token behind a reply."""
    ids = []
    for message in messages:
        closing = [] if message["role"] == "assistant" else [END]
        ids += [ROLES[message["role"]], *said_ids(message), *closing]
    return [*ids, ROLES["assistant"]] if answer else ids


async def play(bench, turns=4, **more):
    """A conversation in which the agent sends each reply back; gives its turns."""
    messages = [HI]
    for _ in range(turns):
        if more.get("stream"):
            text = ""
            async for chunk in await bench.ask(messages=messages, **more):
                text += chunk.choices[0].delta.content or ""
        else:
            text = (await bench.ask(messages=messages, **more)).choices[0].message.content
        messages = [*messages, {"role": "assistant", "content": text}, MORE]
    return bench.turns()


def sequences(turns):
    """How many runs of tokens the assembler makes of an episode."""
    continuity = Continuity()
    for turn in turns:
        continuity.add(turn)
    return len(continuity.sequences())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("mode", "runs"), [("render", 4), ("bridge", 1)])
async def test_a_template_that_drops_a_separator_breaks_no_bridged_episode(
    make, engine, mode, runs, stream
):
    """Four turns whose replies end in a blank: four sequences when rendered, one when bridged."""
    engine.template = trimming
    engine.script = [{"content": f"reply {n} "} for n in range(4)]
    async with make(continuation=mode) as bench:
        turns = await play(bench, stream=stream)
    assert runs == sequences(turns)
    told = [turn.continuation for turn in turns]
    assert (
        [rendered("no_earlier_reply")] + [BRIDGED] * 3 if runs == 1 else [Continuation()] * 4
    ) == told
    assert all(turn.untrainable == "" for turn in turns)


async def test_a_bridged_prompt_is_the_old_ids_and_the_new_messages(make, engine):
    """Prompt and completion of the turn before, verbatim, and then what the template adds."""
    engine.template = trimming
    engine.script = [{"content": " padded  "}, {"content": "plain"}]
    async with make(continuation="bridge") as bench:
        turns = await play(bench, turns=2)
    first, second = (unpack_ids(ids).tolist() for ids in whole_prompts(turns).values())
    sampled = unpack_ids(turns[0].completion.ids).tolist()
    assert [*b" padded  ", END] == sampled
    assert first + sampled + [ROLES["user"], *b"more", END, ROLES["assistant"]] == second


async def test_the_agent_sees_what_it_would_see_without(make, engine):
    """The reply to a bridged call equals, as JSON, the one to the same call rendered."""
    engine.template = trimming
    engine.script = [{"content": "a "}, {"content": "b "}]
    seen = []
    for mode in ("render", "bridge"):
        engine.calls.clear()
        async with make(continuation=mode) as bench:
            first = await bench.ask(messages=[HI])
            said = {"role": "assistant", "content": first.choices[0].message.content}
            second = await bench.ask(messages=[HI, said, MORE])
        seen.append(second.model_dump(exclude_unset=True, exclude={"usage"}))
    assert seen[0] == seen[1]


async def test_tool_calls_are_carried_on_as_they_were_sampled(make, engine):
    """The agent writes the arguments back in its own spacing; the ids stay the engine's."""
    engine.script = [
        {"content": None, "tool_calls": [tool_call("look", '{"at":  1}')]},
        {"content": "done"},
    ]
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    async with make(continuation="bridge") as bench:
        reply = await bench.ask(messages=[HI], tools=tools)
        said = reply.choices[0].message.model_dump(exclude_unset=True, exclude_none=True)
        assert '{"at":  1}' == said["tool_calls"][0]["function"]["arguments"]
        said["tool_calls"][0]["function"]["arguments"] = '{"at":1}'
        result = {"role": "tool", "tool_call_id": "call-1", "content": "nothing"}
        await bench.ask(messages=[HI, said, result], tools=tools)
        await bench.ask(messages=[HI, said, result, MORE])
        turns = bench.turns()
    assert [rendered("no_earlier_reply"), BRIDGED] == [turn.continuation for turn in turns[:2]]
    assert 1 == sequences(turns[:2])
    # Without its tools the conversation is another one for the template.
    assert rendered("inputs_changed") == turns[2].continuation


async def test_reasoning_that_is_not_sent_back_stays_where_it_was_sampled(make, engine):
    """Few clients send it; the model has thought it all the same."""
    engine.script = [{"content": "x", "reasoning": "think"}, {"content": "y"}]
    async with make(continuation="bridge") as bench:
        await bench.ask(messages=[HI])
        await bench.ask(messages=[HI, {"role": "assistant", "content": "x"}, MORE])
        turns = bench.turns()
    assert BRIDGED == turns[1].continuation
    assert 1 == sequences(turns)


async def test_a_template_that_rewrites_history_is_named_with_the_first_index(make, engine):
    """Reasoning that goes away once a user speaks: the call goes out rendered, and says so."""
    engine.template = forgetting
    engine.script = [{"content": "x", "reasoning": "think"}, {"content": "y"}]
    async with make(continuation="bridge") as bench:
        reply = await bench.ask(messages=[HI])
        said = {"role": "assistant", "content": "x", "reasoning": "think"}
        assert "x" == reply.choices[0].message.content
        await bench.ask(messages=[HI, said, MORE])
        turns = bench.turns()
    # user, h, i, end, assistant, and there the thought began
    assert rendered("not_prefix_monotonic", 5) == turns[1].continuation
    assert 2 == sequences(turns)
    assert "kv_transfer_params" not in engine.calls[1]


async def test_a_template_without_end_tokens_is_carried_on(make, engine):
    """The sampled end token stays, though the template writes none."""
    engine.template = open_ended
    async with make(continuation="bridge") as bench:
        turns = await play(bench)
    assert 1 == sequences(turns)
    assert [BRIDGED] * 3 == [turn.continuation for turn in turns[1:]]


async def test_branches_carry_on_from_where_they_fork(make, engine):
    """Another question behind an old reply, and a parallel sample: both begin with known ids."""
    engine.template = trimming
    engine.script = [{"content": f"{n} "} for n in range(9)]
    async with make(continuation="bridge") as bench:
        turns = await play(bench, turns=3)
        old = {"role": "assistant", "content": "0 "}
        other = {"role": "user", "content": "another"}
        await bench.ask(messages=[HI, old, other], n=2)
        again = {"role": "assistant", "content": "3 "}
        await bench.ask(messages=[HI, old, other, again, MORE])
        turns = bench.turns()
    assert [BRIDGED] * 5 == [turn.continuation for turn in turns[1:]]
    prompts = whole_prompts(turns)
    first = turns[0]
    for turn in turns[1:]:
        known = prompts[first.turn_id] + first.completion.ids
        assert prompts[turn.turn_id].startswith(known)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"messages": [{"role": "user", "content": "other"}]}, "no_earlier_reply"),
        ({"extra_body": {"reasoning_effort": "low"}}, "inputs_changed"),
        ({"extra_body": {"chat_template_kwargs": {"x": 1}}}, "inputs_changed"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "inputs_changed"),
        ({"tool_choice": "none"}, "inputs_changed"),
        ({"extra_body": {"continue_final_message": True}}, "prefill"),
        ({"extra_body": {"add_generation_prompt": False}}, "prefill"),
    ],
)
async def test_what_cannot_be_carried_on_says_why(make, engine, change, reason):
    """And goes out as it came."""
    async with make(continuation="bridge") as bench:
        reply = await bench.ask(messages=[HI])
        said = {"role": "assistant", "content": reply.choices[0].message.content}
        await bench.ask(**{"messages": [HI, said, MORE], **change})
        turns = bench.turns()
    assert rendered(reason) == turns[1].continuation
    assert "kv_transfer_params" not in engine.calls[1]


async def test_parts_other_than_text_are_rendered(make, engine):
    """Their ids alone would lose the picture."""
    picture = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    seen = {"role": "user", "content": [{"type": "text", "text": "what?"}, picture]}
    async with make(continuation="bridge") as bench:
        reply = await bench.ask(messages=[HI])
        said = {"role": "assistant", "content": reply.choices[0].message.content}
        await bench.ask(messages=[HI, said, seen])
        turns = bench.turns()
    assert rendered("media") == turns[1].continuation
    assert 0 == len(engine.rendered)


async def test_an_engine_without_renderings_serves_all_the_same(make, engine):
    """It has no such route: the turn says so."""
    engine.mode = "no_render"
    async with make(continuation="bridge") as bench:
        turns = await play(bench, turns=2)
    assert rendered("not_rendered") == turns[1].continuation
    assert 1 == sequences(turns)


async def test_an_engine_that_ignores_ids_is_found_out(make, engine):
    """What it says it used is what counts, and where it differs is on the turn."""
    engine.takes_ids = False
    engine.template = trimming
    engine.script = [{"content": "a "}, {"content": "b "}]
    async with make(continuation="bridge") as bench:
        turns = await play(bench, turns=2)
    # user, h, i, end, assistant, a, and there the template has no blank
    assert rendered("ids_ignored", 6) == turns[1].continuation
    assert (
        pack_ids(trimming([HI, {"role": "assistant", "content": "a"}, MORE]))
        == (whole_prompts(turns)[turns[1].turn_id])
    )


async def test_a_reply_cut_off_at_a_limit_gets_the_end_that_it_lacks(make, engine):
    """Its ids stay, and the template's end token follows."""
    engine.finish = "length"
    engine.script = [{"content": "abc"}]
    cut = [*b"abc"]
    async with make(continuation="bridge") as bench:
        # The stub samples an end token all the same; a limit that is met leaves it out.
        engine_choice = engine.choice

        def choice(asked, index):
            found, _ = engine_choice(asked, index)
            found["token_ids"] = cut
            found["logprobs"] = {"content": engine.logprobs(cut)}
            return found, cut

        engine.choice = choice
        turns = await play(bench, turns=2)
    assert BRIDGED == turns[1].continuation
    expected = prompt_ids([HI, {"role": "assistant", "content": "abc"}, MORE])
    assert pack_ids(expected) == whole_prompts(turns)[turns[1].turn_id]


async def test_without_it_nothing_is_rendered_and_nothing_told(bench):
    """The default costs no request and no byte."""
    turns = await play(bench, turns=2)
    assert [Continuation()] * 2 == [turn.continuation for turn in turns]
    assert [] == bench.engine.rendered
    assert all(b"continuation" not in record.value for record in bench.log.on("rl.turns.v1"))


@pytest.mark.parametrize("path", ["/messages", "/responses"])
async def test_other_dialects_are_carried_on_too(make, engine, path):
    """They become chats before they go out."""
    engine.template = trimming
    engine.script = [{"content": "a "}, {"content": "b "}]
    said = {"role": "assistant", "content": "a "}
    name = "messages" if path == "/messages" else "input"
    async with make(continuation="bridge") as bench:
        for messages in ([HI], [HI, said, MORE]):
            body = {"model": "policy", "max_tokens": 99, name: messages}
            status, _, answer = await bench.post(f"/e/e1/v1{path}", body, token=bench.token())
            assert 200 == status, json.loads(answer)
        turns = bench.turns()
    assert [rendered("no_earlier_reply"), BRIDGED] == [turn.continuation for turn in turns]
    assert 1 == sequences(turns)


tokens = st.lists(st.integers(0, 3), max_size=6)


@given(tokens, tokens, tokens, tokens, st.booleans())
def test_what_is_sent_begins_with_all_that_is_known(before, own, new, sampled, closed):
    """Whatever the template does: the known ids, or nothing."""
    sampled = [*sampled, 9]
    known = pack_ids([*before, *sampled])
    renderings = Renderings(
        before=pack_ids(before),
        reply=pack_ids(before + own),
        whole=pack_ids(before + own + new),
    )
    standing = bridge(known, len(before), renderings, closed=closed)
    assert standing.sent == b"" or standing.sent.startswith(known)
    assert (standing.continuation.mode == "bridge") is bool(standing.sent)


def sent(own, new, sampled, *, closed=True):
    """What follows the sampled ids."""
    renderings = Renderings(
        before=pack_ids([1]), reply=pack_ids([1, *own]), whole=pack_ids([1, *own, *new])
    )
    standing = bridge(pack_ids([1, 2, *sampled]), 2, renderings, closed=closed)
    return unpack_ids(standing.sent).tolist()[2 + len(sampled) :] if standing.sent else None


@pytest.mark.parametrize(
    ("own", "new", "sampled", "closed", "rest"),
    [
        ([2, 5, 9, 7], [8], [5, 9], True, [7, 8]),
        ([2, 6, 9, 7], [8], [5, 9], True, [7, 8]),
        ([2, 5], [9, 8], [5, 9], True, [8]),
        ([2, 5], [8], [5, 9], True, [8]),
        ([2, 5, 9, 7], [8], [5, 4], True, [9, 7, 8]),
        ([2, 5, 9, 7], [8], [5], False, [9, 7, 8]),
        ([2, 6, 9, 7], [8], [5], False, None),
        ([2, 5, 5, 9], [8], [5], False, None),
        ([2, 6], [8], [5, 9], True, None),
        ([2, 9, 5, 9, 7], [8], [5, 9], True, [7, 8]),
        ([2, 256, 0, 1, 9], [8], [1], False, [9, 8]),
    ],
    ids=[
        "the end token and what the template puts behind it",
        "the text came out otherwise",
        "the next message's first token ends it",
        "the template writes no end",
        "another end token than the template's",
        "cut off at a limit",
        "cut off, and the text came out otherwise",
        "cut off, and its place cannot be told",
        "no end anywhere",
        "an end token within the reply, too",
        "bytes of two ids that look like another one",
    ],
)
def test_what_follows_a_reply(own, new, sampled, closed, rest):
    """Known from the reply's own rendering, never guessed."""
    assert rest == sent(own, new, sampled, closed=closed)


@pytest.mark.parametrize(
    ("limit", "more", "expected"),
    [
        (None, {}, [ReplyEnd(4, 2, 5, True, b"")]),
        (4, {}, [ReplyEnd(4, 2, 5, True, b"")]),
        (3, {}, [ReplyEnd(4, 2, 5, False, b"")]),
        (None, {"closed": False}, [ReplyEnd(4, 2, 5, False, b"")]),
        (None, {"untrainable": "length_mismatch"}, []),
        (None, {"completion": Completion()}, []),
    ],
)
def test_where_a_later_prompt_may_go_on(limit, more, expected):
    """Behind ids that are sure; closed only where the engine, not the limit, ended the reply."""
    sampled = Completion(ids=pack_ids([5, 6, END]))
    captured = CapturedReply(
        **{"prompt": pack_ids([1, 2]), "completion": sampled, "closed": True, **more}
    )
    standing = PromptSource(continuation=BRIDGED, limit=limit)
    assert expected == [*ends(standing, 3, captured)]
    assert () == ends(None, 3, captured)
