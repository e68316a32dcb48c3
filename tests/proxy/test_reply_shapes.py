"""Whatever shape an engine's reply has: log, agent and whole reply agree, in every dialect."""

import json

import pytest
from hypothesis import given, settings
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from odradek.proxy.calls import capture
from odradek.proxy.calls.engine_request import EngineAnswer
from odradek.proxy.wire import body, shapes
from odradek.schemas.events import parsed
from tests.support.engines.engine_shapes import (
    DONE,
    ENDINGS,
    ERRORS,
    FAILURES,
    GOING_ON,
    HEAD,
    NO_ENDS,
    NO_ERRORS,
    OBJECTS,
    ODD_NO_ENDS,
    ROLE,
    SHAPES,
    STRING_ENDS,
    chunk,
    event,
    text,
    whole,
)

from .test_chunkings import PLACES, cut, events, relayed
from .test_translators import ask_of, content_of

GEMINI = "gemini"
DIALECTS = ["/chat/completions", "/responses", "/messages", GEMINI]
REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
BLANK = {"id": "", "created": 0, "model": ""}
ALL = [*SHAPES, *OBJECTS]
ROUTES = [*DIALECTS, "/completions"]


def named(path):
    return {"/messages": {"name": "f", "input_schema": {}}}.get(
        path, {"type": "function", "name": "f", "function": {"name": "f"}}
    )


def asked(path, **more):
    if path == GEMINI:
        config = {"thinkingConfig": {"includeThoughts": True}}
        path = ":streamGenerateContent" if more.get("stream") else ":generateContent"
        tools = [{"functionDeclarations": [{"name": "f"}]}]
        return ask_of(path, tools=tools, generationConfig=config)
    thinking = {"thinking": {"type": "enabled"}} if path == "/messages" else {}
    return ask_of(path, tools=[named(path)], **thinking, **more)


def said(message):
    """What a message in the form of chats says: reasoning, text and calls."""
    names = ("reasoning", "reasoning_content", "thinking")
    thought = next((message[name] for name in names if message.get(name)), "")
    calls = []
    for call in message.get("tool_calls") or ():
        custom = call["type"] == "custom"
        function = call["custom" if custom else "function"]
        assert isinstance(function["input" if custom else "arguments"], str)
        assert bool(call.get("function")) is not custom
        calls.append((function["name"], spelt(function["input" if custom else "arguments"])))
    return thought, message.get("content") or "", calls


def spelt(arguments):
    """Arguments without regard to blanks."""
    return json.loads(arguments) if arguments else {}


def of_blocks(blocks):
    """The same of Anthropic's blocks."""
    texts = {
        kind: "".join(block.get(kind, "") for block in blocks) for kind in ("thinking", "text")
    }
    calls = [(block["name"], block["input"]) for block in blocks if block["type"] == "tool_use"]
    return texts["thinking"], texts["text"], calls


def of_contents(chunks):
    """The same of Google's: what was said, why it ended, and the ids of calls."""
    found = [chunk["candidates"][0] for chunk in chunks]
    thought = text = ""
    calls, ids = [], []
    for part in (part for one in found for part in one["content"]["parts"]):
        if call := part.get("functionCall"):
            calls.append((call["name"], call["args"]))
            ids.append(call["id"])
        elif part.get("thought"):
            thought += part["text"]
        else:
            text += part["text"]
    return (thought, text, calls), found[-1]["finishReason"], ids


def of_items(items):
    """The same of a response's items."""
    thought = text = ""
    calls = []
    for item in items:
        if item["type"] == "function_call":
            calls.append((item["name"], spelt(item["arguments"])))
        for part in item.get("content") or ():
            thought += part["text"] if part["type"] == "reasoning_text" else ""
            text += part["text"] if part["type"] == "output_text" else ""
    return thought, text, calls


def seen(path, told):
    """What an agent makes of a stream: (what was said, why it ended, ids of calls)."""
    data = events(told)
    if path == "/chat/completions":
        assert b"[DONE]" == data[-1]
        assert 1 == data.count(b"[DONE]")
        state = ChatCompletionStreamState()
        for one in data[:-1]:
            chunk = json.loads(one)
            assert isinstance(chunk["choices"], list)
            assert all(isinstance(choice["delta"], dict) for choice in chunk["choices"])
            chunk = {"object": "chat.completion.chunk", **BLANK, "choices": chunk["choices"]}
            # The SDK itself validates nothing; its type of a stream's call knows functions only.
            made = ChatCompletionChunk.construct if b'"custom"' in one else ChatCompletionChunk
            state.handle_chunk(made(**chunk))
        choice = state.current_completion_snapshot.choices[0]
        message = choice.message.to_dict()
        ids = [call["id"] for call in message.get("tool_calls") or ()]
        return said(message), choice.finish_reason, ids
    found = [json.loads(one) for one in data]
    if path == GEMINI:
        return of_contents(found)
    if path == "/responses":
        output = found[-1]["response"]["output"]
        ids = [item["call_id"] for item in output if item["type"] == "function_call"]
        return of_items(output), found[-1]["response"]["status"], ids
    blocks = content_of(found)
    ids = [block["id"] for block in blocks if block["type"] == "tool_use"]
    return of_blocks(blocks), found[-2]["delta"]["stop_reason"], ids


def of_whole(path, reply):
    """The same of a whole reply."""
    if path == "/chat/completions":
        (choice,) = reply["choices"]
        ids = [call["id"] for call in choice["message"].get("tool_calls") or ()]
        return said(choice["message"]), choice["finish_reason"], ids
    if path == "/responses":
        ids = [item["call_id"] for item in reply["output"] if item["type"] == "function_call"]
        return of_items(reply["output"]), reply["status"], ids
    if path == GEMINI:
        return of_contents([reply])
    ids = [block["id"] for block in reply["content"] if block["type"] == "tool_use"]
    return of_blocks(reply["content"]), reply["stop_reason"], ids


def ended(path, finish, calls):
    """Why a reply ended, in the words of a dialect."""
    if path == "/chat/completions":
        return finish
    if path == "/responses":
        return "incomplete" if finish == "length" else "completed"
    if path == GEMINI:
        return "MAX_TOKENS" if finish == "length" else "STOP"
    return "tool_use" if calls else REASONS[finish]


def strings(path, shape):
    """Whether Anthropic has a word of its own for this end."""
    return path == "/messages" and "stop string" in shape.name


@pytest.mark.parametrize("path", DIALECTS)
@pytest.mark.parametrize("shape", ALL, ids=lambda shape: shape.name)
@settings(max_examples=3, deadline=None)
@given(PLACES)
def test_turn_and_agent_say_what_the_engine_meant(shape, path, places):
    """However the bytes of its stream came, in every dialect, streamed and whole."""
    thought, text, calls, finish, why = shape.expected
    calls = [(name, spelt(arguments)) for name, arguments in calls]
    ask = asked(path, stream=True)
    relay = relayed(ask, cut(shape.wire(), places))
    (turn,) = relay.captured()
    assert ("", why) == (turn.error, turn.untrainable)
    message = parsed(turn.reply.message)
    assert (thought, text, calls) == said(message)
    assert ("assistant", finish) == (message["role"], turn.reply.finish_reason)
    words, reason, ids = seen(path, b"".join(relay.pieces))
    assert (thought, text, calls) == words
    expected = "stop_sequence" if strings(path, shape) else ended(path, finish, calls)
    assert expected == reason
    assert [call["id"] for call in message.get("tool_calls") or ()] == ids
    assert "" not in ids
    assert len(ids) == len(set(ids))
    seen_early = b"".join(relay.pieces)[: -len(b"".join(relay.held))]
    assert b"[DONE]" not in seen_early
    assert b'"finish_reason": "' not in seen_early.replace(b'":"', b'": "')
    if shape.whole is None:
        return
    whole = json.dumps(shape.whole).encode()
    (captured,), answer = capture.whole(EngineAnswer(200, {}, whole), asked(path))
    assert (200, "", why) == (answer.status, captured.error, captured.untrainable)
    assert (thought, text, calls) == said(parsed(captured.reply.message))
    assert finish == captured.reply.finish_reason
    assert (words, reason) == of_whole(path, json.loads(answer.chunks[0]))[:2]
    message = parsed(captured.reply.message)
    assert [call["id"] for call in message.get("tool_calls") or ()] == of_whole(
        path, json.loads(answer.chunks[0])
    )[2]


def failed(path, relay):
    """The agent got its dialect's error behind what it had seen, and no end; the turn failed."""
    assert all(one.error for one in relay.captured())
    told = b"".join(relay.pieces)
    assert b"[DONE]" not in told
    last = json.loads(events(told)[-1])
    kind = {"/messages": "error", "/responses": "response.failed"}
    assert kind.get(path) == last.get("type" if path in kind else "object")
    assert isinstance(last["response" if path == "/responses" else "error"], dict)
    for end in (b"message_stop", b"message_delta", b"response.completed"):
        assert b"event: " + end not in told
    for one in events(told):
        for choice in json.loads(one).get("choices") or ():
            assert not choice.get("finish_reason")
    return last["response"]["error"] if path == "/responses" else last["error"]


@pytest.mark.parametrize("path", DIALECTS)
@pytest.mark.parametrize("failure", FAILURES, ids=str)
@settings(max_examples=5, deadline=None)
@given(PLACES)
def test_an_error_in_a_good_stream_is_an_error_of_the_dialect(path, failure, places):
    """In whatever shape, and whatever end comes behind it."""
    failure = failure if isinstance(failure, bytes) else event(failure)
    wire = b"".join(map(event, text()[:2])) + failure
    for behind in (b"", DONE, event(chunk(finish="stop")) + DONE):
        relay = relayed(asked(path, stream=True), cut(wire + behind, places))
        error = failed(path, relay)
        words = "out of memory"
        if b"data: out" not in failure and b"[ERROR]" not in failure:
            assert words in error["message"] + json.dumps(error)
            assert words in relay.captured()[0].error


@pytest.mark.parametrize("path", DIALECTS)
@pytest.mark.parametrize("word", NO_ENDS)
def test_a_reply_that_no_model_ended_is_an_error_of_the_engine(path, word):
    """Streamed, whole, and where other choices of the call ended well."""
    wire = b"".join(map(event, [ROLE, chunk({"content": "so"}), chunk(finish=word)]))
    relay = relayed(asked(path, stream=True), [wire + DONE])
    failed(path, relay)
    assert word[:100] in relay.captured()[0].error
    assert "so" == parsed(relay.captured()[0].reply.message)["content"]
    reply = whole({"role": "assistant", "content": "so"}, word)
    (captured,), answer = capture.whole(
        EngineAnswer(200, {}, json.dumps(reply).encode()), asked(path)
    )
    assert word[:100] in captured.error
    assert 502 == answer.status
    assert word[:100] in json.loads(answer.chunks[0])["error"]["message"]


@pytest.mark.parametrize("word", ODD_NO_ENDS, ids=str)
def test_an_end_in_another_form_that_no_model_says_is_an_error_of_the_engine(word):
    """Objects, lists and numbers, streamed and whole."""
    for path in ROUTES:
        chunks, reply = spoken(path, word)
        failed(path, relayed(asked(path, stream=True), [*map(event, chunks), DONE]))
        (captured,), answer = capture.whole(
            EngineAnswer(200, {}, json.dumps(reply).encode()), asked(path)
        )
        assert ("which no model says" in captured.error, 502) == (True, answer.status)


def spoken(path, *words):
    """The word `so` and ends, as the engine says them on a dialect's route: streamed and whole."""
    if path == "/completions":
        said = [
            {"index": 0, "text": text, "finish_reason": word}
            for text, word in zip(["so", *[""] * len(words)], [None, *words], strict=True)
        ]
        reply = {"id": "c1", "choices": [{"index": 0, "text": "so", "finish_reason": words[-1]}]}
        return [{"id": "c1", "choices": [one]} for one in said], reply
    message = {"role": "assistant", "content": "so"}
    return [chunk(message), *(chunk(finish=word) for word in words)], whole(message, words[-1])


def heard(path, relay):
    """What an agent makes of a stream, in each dialect: what was said, and why it ended."""
    told = b"".join(relay.pieces)
    if path != "/completions":
        return seen(path, told)[:2]
    choices = [one for data in events(told)[:-1] for one in json.loads(data)["choices"]]
    text = "".join(choice["text"] for choice in choices)
    return ("", text, []), next(filter(None, (one["finish_reason"] for one in choices)))


def heard_whole(path, answer):
    """The same of a whole reply."""
    reply = json.loads(answer.chunks[0])
    if path != "/completions":
        return of_whole(path, reply)[:2]
    (choice,) = reply["choices"]
    return ("", choice["text"], []), choice["finish_reason"]


@pytest.mark.parametrize(
    ("finish", "word"),
    [(finish, word) for finish, words in ENDINGS.items() for word in words]
    + [("stop", word) for word in STRING_ENDS],
    ids=str,
)
def test_an_end_in_any_spelling_is_the_end(finish, word):
    """Turn and agent get OpenAI's word, or the dialect's, streamed and whole."""
    for path in ROUTES:
        chunks, reply = spoken(path, word)
        relay = relayed(asked(path, stream=True), [*map(event, chunks), DONE])
        (turn,) = relay.captured()
        assert ("", finish) == (turn.error, turn.reply.finish_reason)
        (captured,), answer = capture.whole(
            EngineAnswer(200, {}, json.dumps(reply).encode()), asked(path)
        )
        assert ("", finish, 200) == (captured.error, captured.reply.finish_reason, answer.status)
        words, reason = heard(path, relay)
        assert "so" == words[1]
        assert (words, reason) == heard_whole(path, answer)
        if path in {"/chat/completions", "/completions"}:
            assert finish == reason
        closed = finish in {"stop", "tool_calls"} and word not in STRING_ENDS
        assert (closed, closed) == (turn.closed, captured.closed)
        if path == "/messages" and word in STRING_ENDS:
            assert "stop_sequence" == reason


@pytest.mark.parametrize("word", GOING_ON, ids=str)
def test_a_word_for_no_end_yet_is_none(word):
    """Nothing is held back for it, and a reply that has no other has no end."""
    for path in ROUTES:
        chunks, reply = spoken(path, word, "stop")
        relay = relayed(asked(path, stream=True), [*map(event, chunks), DONE])
        assert ("", "stop") == (relay.captured()[0].error, relay.captured()[0].reply.finish_reason)
        assert "so" == heard(path, relay)[0][1]
        failed(path, relayed(asked(path, stream=True), [*map(event, chunks[:-1]), DONE]))
        reply["choices"][0]["finish_reason"] = word
        (captured,), answer = capture.whole(
            EngineAnswer(200, {}, json.dumps(reply).encode()), asked(path)
        )
        assert ("without a finish reason" in captured.error, 502) == (True, answer.status)


@pytest.mark.parametrize(("matched", "closed"), [("END", False), (7, True), (None, True)])
def test_an_end_that_names_what_it_met_says_whether_it_was_a_stop_string(matched, closed):
    """SGLang's own form of a finish reason."""
    chunks, reply = spoken("/messages", {"type": "stop", "matched": matched})
    relay = relayed(asked("/messages", stream=True), [*map(event, chunks), DONE])
    (captured,), answer = capture.whole(
        EngineAnswer(200, {}, json.dumps(reply).encode()), asked("/messages")
    )
    assert (closed, closed) == (relay.captured()[0].closed, captured.closed)
    stopped = None if closed else "END"
    assert stopped == json.loads(answer.chunks[0])["stop_sequence"]


@pytest.mark.parametrize("path", DIALECTS)
@pytest.mark.parametrize("missing", [{"finish_reason": None}, {"finish_reason": ""}, {}])
def test_a_reply_without_an_end_is_an_error_of_the_engine(path, missing):
    """A stream that is over, with or without saying so, and a whole reply."""
    head = b"".join(map(event, [ROLE, chunk({"content": "so"})]))
    last = {"choices": [{"index": 0, "delta": {}, **missing}]}
    for behind in (b"", DONE, event(last) + DONE):
        failed(path, relayed(asked(path, stream=True), [head + behind]))
    choice = {"index": 0, "message": {"role": "assistant", "content": "so"}, **missing}
    reply = json.dumps({"id": "c1", "choices": [choice]}).encode()
    (captured,), answer = capture.whole(EngineAnswer(200, {}, reply), asked(path))
    assert "without a finish reason" in captured.error
    assert (502, "1") == (answer.status, answer.headers["Retry-After"])


@pytest.mark.parametrize("word", ["abort", None])
@pytest.mark.parametrize("place", [0, 1])
def test_one_choice_that_no_model_ended_fails_the_call(word, place):
    """Its agent sees no end of the others either, so none of them is trained on."""
    words = ["stop", "stop"]
    words[place] = word
    chunks = [
        {"choices": [{"index": index, "delta": {"content": "x"}, "finish_reason": word}]}
        for index, word in enumerate(words)
    ]
    relay = relayed(asked("/chat/completions", stream=True, n=2), [*map(event, chunks), DONE])
    failed("/chat/completions", relay)
    assert relay.captured()[place].error
    choices = [
        {"index": index, "message": {"role": "assistant", "content": "x"}, "finish_reason": word}
        for index, word in enumerate(words)
    ]
    reply = json.dumps({"choices": choices}).encode()
    found, answer = capture.whole(EngineAnswer(200, {}, reply), asked("/chat/completions", n=2))
    assert [True, True] == [bool(one.error) for one in found]
    assert 502 == answer.status


@pytest.mark.parametrize("place", ["reply", "choice"])
@pytest.mark.parametrize("error", NO_ERRORS, ids=str)
def test_no_error_is_no_error(error, place):
    """Some gateways always have the field; clients that take it for an error never see it."""
    for path in ROUTES:
        chunks, reply = spoken(path, "stop")
        for one in [*chunks, reply]:
            target = one if place == "reply" else one["choices"][0]
            target["error"] = error
        if place == "reply":
            chunks[:0] = [{**HEAD, "choices": [], "error": error}, {"id": "c1", "error": error}]
        relay = relayed(asked(path, stream=True), [*map(event, chunks), DONE])
        assert ("so", "") == (heard(path, relay)[0][1], relay.captured()[0].error)
        (captured,), answer = capture.whole(
            EngineAnswer(200, {}, json.dumps(reply).encode()), asked(path)
        )
        assert ("", 200) == (captured.error, answer.status)
        assert "so" == heard_whole(path, answer)[0][1]
        for told in [
            *map(json.loads, events(b"".join(relay.pieces))[:-1]),
            json.loads(answer.chunks[0]),
        ]:
            for holder in [told, *(told.get("choices") or ())]:
                assert not isinstance(holder, dict) or not holder.get("error")


@pytest.mark.parametrize("place", ["reply", "choice"])
@pytest.mark.parametrize("error", ERRORS, ids=str)
def test_an_error_beside_a_good_end_is_one(error, place):
    """However little it says."""
    for path in ROUTES:
        chunks, reply = spoken(path, "stop")
        for one in [chunks[-1], reply]:
            target = one if place == "reply" else one["choices"][0]
            target["error"] = error
        failed(path, relayed(asked(path, stream=True), [*map(event, chunks), DONE]))
        (captured,), answer = capture.whole(
            EngineAnswer(200, {}, json.dumps(reply).encode()), asked(path)
        )
        assert captured.error
        assert 502 == answer.status
        assert json.loads(answer.chunks[0])["error"]["message"]


@pytest.mark.parametrize("failure", [one for one in FAILURES if isinstance(one, dict)], ids=str)
@pytest.mark.parametrize("path", DIALECTS)
def test_an_error_that_calls_itself_good_is_a_502(path, failure):
    """With the engine's words, in the dialect's shape; SDKs try again."""
    choices = [{"message": {"content": "so"}, **choice} for choice in failure.get("choices") or ()]
    body = {**failure, "choices": choices} if "choices" in failure else failure
    (captured,), answer = capture.whole(
        EngineAnswer(200, {}, json.dumps(body).encode()), asked(path)
    )
    assert "out of memory" in captured.error
    assert (502, "1") == (answer.status, answer.headers["Retry-After"])
    assert "out of memory" in json.dumps(json.loads(answer.chunks[0])["error"])


def test_the_older_way_to_call_a_function_is_heard():
    """Its pieces become one, and in the dialects that do not know it a tool call."""
    chunks = [
        chunk({"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": ""}}),
        chunk({"function_call": {"arguments": '{"x"'}}), chunk({"function_call": {"arguments": ": 1}"}}),
        chunk(finish="function_call"),
    ]  # fmt: skip
    wire = b"".join(map(event, chunks)) + DONE
    for path in DIALECTS:
        relay = relayed(asked(path, stream=True), [wire])
        (turn,) = relay.captured()
        assert {"name": "f", "arguments": '{"x": 1}'} == parsed(turn.reply.message)["function_call"]
        if path != "/chat/completions":
            assert [("f", {"x": 1})] == seen(path, b"".join(relay.pieces))[0][2]


TEXTS = [
    [{"index": 0, "text": "s", "finish_reason": None}, {"index": 0, "text": "o", "finish_reason": "stop"}],
    [{"index": None, "text": "so", "finish_reason": ""}, {"index": 0, "text": None, "finish_reason": "eos"}],
    [{"text": "so", "logprobs": None, "token_ids": None}, {"text": "", "finish_reason": "eos_token"}],
    [{"text": "so", "logprobs": {"token_logprobs": None}}, {"finish_reason": "stop", "text": ""}],
    [{"text": "so", "logprobs": {"tokens": ["so"]}}, {"finish_reason": "end_turn", "text": ""}],
    [{"text": "so"}, {"finish_reason": "stop"}],
    [{"message": {"role": "assistant", "content": "so"}}, {"message": {}, "finish_reason": "stop"}],
    [{"delta": {"role": "assistant", "content": "so"}}, {"delta": {}, "finish_reason": "stop"}],
    [{"text": None, "message": {"content": "so", "reasoning": None}}, {"finish_reason": "stop", "text": None}],
    [{"content": "so"}, {"content": None, "finish_reason": "stop"}],
    [{"delta": "so"}, {"delta": None, "finish_reason": "stop"}],
    [{"message": {"content": [{"type": "text", "text": "so"}]}}, {"finish_reason": "stop"}],
    [{"text": {"content": "so"}}, {"finish_reason": "stop"}],
]  # fmt: skip


@pytest.mark.parametrize("choices", TEXTS)
def test_text_completions_of_any_shape_are_read(choices):
    """Streamed with an empty chunk in between, and whole with all of the text."""
    path = "/completions"
    ask = ask_of(path, stream=True)
    bodies = [{"id": None, "choices": [choices[0]]}, {"choices": None}, {"choices": [choices[1]]}]
    relay = relayed(ask, [*map(event, bodies), DONE])
    (turn,) = relay.captured()
    told = [json.loads(one) for one in events(b"".join(relay.pieces))[:-1]]
    texts = [choice["text"] for chunk in told for choice in chunk["choices"]]
    assert ("so", "so") == ("".join(texts), parsed(turn.reply.message)["content"])
    ends = [choice["finish_reason"] for choice in told[-1]["choices"]]
    assert (["stop"], "stop", "") == (ends, turn.reply.finish_reason, turn.error)
    whole = {"choices": [{**choices[0], "finish_reason": choices[1]["finish_reason"]}]}
    if choices[0].get("text") == "s":
        whole["choices"][0]["text"] = "so"
    pieces = shapes.chunks(json.dumps(whole).encode(), ask.dialect.read)
    again = relayed(ask, [b"data: " + one + b"\n\n" for one in [*pieces, b"[DONE]"]]).captured()[0]
    assert ("", parsed(turn.reply.message)) == (again.error, parsed(again.reply.message))
    (captured,), answer = capture.whole(
        EngineAnswer(200, {}, json.dumps(whole).encode()), ask_of(path)
    )
    (choice,) = json.loads(answer.chunks[0])["choices"]
    assert ("so", "stop", "stop") == (
        choice["text"], choice["finish_reason"], captured.reply.finish_reason,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("values", "why"),
    [([-0.5, -1], ""), ([None, -1], "no_logprobs"), (["-inf", -1], "no_logprobs"), ([-1], "length_mismatch")],
)  # fmt: skip
def test_log_probabilities_of_texts_are_all_there_or_none(values, why):
    """Whatever stands in the place of one."""
    choice = {
        "text": "so", "finish_reason": "stop", "token_ids": [1, 2], "prompt_token_ids": [3],
        "logprobs": {"token_logprobs": values},
    }  # fmt: skip
    reply = json.dumps({"choices": [choice]}).encode()
    (captured,), answer = capture.whole(EngineAnswer(200, {}, reply), ask_of("/completions"))
    assert (why, "", 200) == (captured.untrainable, captured.error, answer.status)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"token_ids": ["7", 8]}, ""), ({"token_ids": [7.0, 8.0]}, ""),
        ({"token_ids": [7, None]}, "bad_tokens"), ({"token_ids": "7 8"}, "bad_tokens"),
        ({"token_ids": [7, {}]}, "bad_tokens"), ({"token_ids": [7.5, 8]}, "bad_tokens"),
        ({"logprobs": []}, "no_logprobs"), ({"logprobs": {"content": {}}}, "no_logprobs"),
        ({"logprobs": "none"}, "no_logprobs"), ({"weight_versions": [{"version": 3}]}, ""),
        ({"weight_versions": "v3"}, ""), ({"stop_reason": {"x": 1}}, ""),
    ],
)  # fmt: skip
def test_what_only_a_turn_needs_costs_the_agent_nothing(wrong, why):
    """Ids, log probabilities, versions: what is wrong with them stands in the turn."""
    tokens = {"token_ids": [7, 8], "logprobs": {"content": [{"logprob": -1}, {"logprob": -2}]}}
    choice = {
        "index": 0, "message": {"role": "assistant", "content": "so"}, "finish_reason": "stop",
        **tokens, **wrong,
    }  # fmt: skip
    body = {"id": "c1", "prompt_token_ids": [1], "choices": [choice]}
    (captured,), answer = capture.whole(
        EngineAnswer(200, {}, json.dumps(body).encode()), asked(DIALECTS[0])
    )
    assert (200, "", why) == (answer.status, captured.error, captured.untrainable)
    choice["delta"] = choice.pop("message")
    relay = relayed(asked(DIALECTS[0], stream=True), [event(body), DONE])
    (captured,) = relay.captured()
    assert ("", why) == (captured.error, captured.untrainable)
    assert "so" == seen(DIALECTS[0], b"".join(relay.pieces))[0][1]


@pytest.mark.parametrize(
    "kind", [["text"], {"a": 1}, None, 1], ids=["list", "object", "null", "number"]
)
def test_a_part_of_a_reply_whose_type_is_no_text_is_read(kind):
    """Its text is, and nothing breaks."""
    reply = {
        "choices": [
            {"message": {"content": [{"type": kind, "text": "so"}]}, "finish_reason": "stop"}
        ]
    }
    read = shapes.whole(json.dumps(reply).encode(), body.read, "d")
    assert "so" == json.loads(bytes(read.body.choices[0].message))["content"]


@pytest.mark.parametrize("place", ["of the reply", "of its choice"])
def test_a_field_that_nobody_reads_may_hold_anything(place):
    """Bytes that are no UTF-8: where a dialect copies them, the turn says so, and no call fails."""
    for path in ROUTES:
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "so"},
            "finish_reason": "stop",
        }
        choice |= {"text": "so"} if path == "/completions" else {}
        body = {"id": "c1", "choices": [choice]}
        (choice if place == "of its choice" else body)["XX"] = 1
        reply = json.dumps(body).encode().replace(b"XX", b"\xa5\xff")
        ask = ask_of(path) if path == "/completions" else asked(path)
        (captured,), answer = capture.whole(EngineAnswer(200, {}, reply), ask)
        copied = path in {"/chat/completions", "/completions"}
        assert (502 if copied else 200) == answer.status
        assert copied is ("cannot be read" in captured.error)
        json.loads(answer.chunks[0])


DEEP = b"[" * 2000 + b"]" * 2000
UNREADABLE = [
    b"", b"\n", b"no json at all", b"<html>502</html>", b"null", b"7", b"[]", b'"so"', b"{", b"{}", b"\xff", DEEP,
    b'{"choices": 7}', b'{"choices": "so"}', b'{"choices": [7]}', b'{"choices": []}', b'{"choices": null}',
    b'{"choices": [{"index": 0, "message": {"content": "so"}, "text": "so", "finish_reason": "stop"}]',
    *(
        b'{"choices": [{"index": 0, "message": {"content": "so%b"}, "text": "so%b", "finish_reason": "stop"}]}'
        % (bad, bad) for bad in (b"\xff", b"\\ud83d", b"\\ude00", b"\x00", b"\xc3")
    ),
    b'{"choices": [{"index": 0, "message": %b, "text": %b, "finish_reason": "stop"}]}' % (DEEP, DEEP),
    *(b'{"choices": [' * n + b"]}" * n for n in (70, 5000)),
]  # fmt: skip
UNREAD = [b'"\xff"', b'"\\ud83d"', b'"a\xc3"', b'{"\xff": 1}', DEEP]


@pytest.mark.parametrize("reply", UNREADABLE, ids=lambda reply: str(reply[:90]))
def test_a_whole_reply_that_cannot_be_read_is_an_error_of_the_dialect(reply):
    """Its agent never gets the engine's bytes as a good answer."""
    for path in ROUTES:
        (captured,), answer = capture.whole(
            EngineAnswer(200, {"Content-Type": "text/html"}, reply), asked(path)
        )
        assert captured.error
        assert (502, "1", "application/json") == (
            answer.status, answer.headers["Retry-After"], answer.headers["Content-Type"],
        )  # fmt: skip
        assert json.loads(answer.chunks[0])["error"]["message"]


@pytest.mark.parametrize(
    "wants", [{}, {"logprobs": True, "return_token_ids": True, "return_weight_versions": True}], ids=["", "all"]
)  # fmt: skip
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("unread", UNREAD, ids=lambda value: str(value[:20]))
def test_what_a_client_could_not_read_is_no_reply(unread, place, wants):
    """In a field that is copied as it stands; where a dialect does not copy it, it is left out."""
    for path in ("/chat/completions", "/completions"):
        choice = {
            "index": 0, "message": {"role": "assistant", "content": "so"}, "text": "so",
            "finish_reason": "stop",
        }  # fmt: skip
        reply = {"id": "c1", "choices": [choice]}
        (choice if place else reply)["x"] = "X"
        data = json.dumps(reply).encode().replace(b'"X"', unread)
        (captured,), answer = capture.whole(EngineAnswer(200, {}, data), asked(path, **wants))
        assert captured.error
        assert 502 == answer.status
        json.loads(answer.chunks[0].decode())


@pytest.mark.parametrize("status", [204, 201, 299, 302, 304, 199])
def test_an_answer_without_a_reply_is_no_good_answer(status):
    """Whatever its status: what sends its caller elsewhere, too."""
    for path in ROUTES:
        (captured,), answer = capture.whole(EngineAnswer(status, {}, b""), asked(path))
        assert captured.error
        assert 502 == answer.status
        assert json.loads(answer.chunks[0])["error"]["message"]
