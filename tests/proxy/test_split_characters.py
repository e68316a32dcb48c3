"""Characters that an engine's chunks have cut in two are whole for the log and for every agent."""

import json

import pytest

from odradek.schemas.events import parsed
from tests.support.engines.engine_shapes import (
    CALL_END,
    DONE,
    END,
    ROLE,
    call,
    calls,
    choices,
    chunk,
)

from .test_chunkings import relayed
from .test_reply_shapes import DIALECTS, ROUTES, asked, failed, heard, said


def wire(chunks):
    """The stream's bytes, halves of characters as escapes."""
    return [
        one if isinstance(one, bytes) else b"data: " + json.dumps(one).encode() + b"\n\n"
        for one in chunks
    ]


FIRST, SECOND = "\ud83d", "\ude00"
SPLITS = [
    ["a" + FIRST, SECOND + "b"], ["a", FIRST, SECOND, "b"], ["a" + FIRST, "", SECOND + "b"],
    ["a" + FIRST, None, SECOND + "b"], ["a", FIRST, SECOND + "b"], ["a" + FIRST, SECOND, "b"],
]  # fmt: skip
TWICE = ["a" + FIRST, SECOND + FIRST, SECOND + "b"]
LONE = [
    [FIRST],
    [SECOND],
    ["a" + FIRST, "b"],
    [SECOND + "b"],
    [FIRST + "b"],
    [FIRST, FIRST + SECOND],
    [FIRST, " " + SECOND],
]


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    ("texts", "expected"),
    [*((one, "a\U0001f600b") for one in SPLITS), (TWICE, "a\U0001f600\U0001f600b")],
)
def test_a_character_in_two_chunks_is_one(path, texts, expected):
    """Of the text, however many chunks lie between its halves."""
    if path == "/completions":
        chunks = [
            choices({"index": 0, "text": text or "", "finish_reason": None}) for text in texts
        ]
        chunks += [choices({"index": 0, "text": "", "finish_reason": "stop"}), DONE]
    else:
        chunks = [ROLE, *(chunk({"content": text}) for text in texts), *END]
    relay = relayed(asked(path, stream=True), wire(chunks))
    (turn,) = relay.captured()
    assert ("", expected) == (turn.error, parsed(turn.reply.message)["content"])
    assert expected == heard(path, relay)[0][1]


@pytest.mark.parametrize("path", DIALECTS)
def test_each_kind_of_text_has_halves_of_its_own(path):
    """Thoughts, words, and the arguments of two calls, in turns."""
    chunks = [
        chunk({"reasoning_content": "h" + FIRST}), chunk({"content": "w" + FIRST}), chunk({"reasoning_content": SECOND}),
        chunk({"content": SECOND}), calls(call(0, "a", "f", '{"x": "' + FIRST)), calls(call(1, "b", "g", '{"y": "' + FIRST)),
        calls(call(0, arguments=SECOND + '"}')), calls(call(1, arguments=SECOND + '"}')), *CALL_END,
    ]  # fmt: skip
    relay = relayed(asked(path, stream=True), wire(chunks))
    (turn,) = relay.captured()
    whole = "\U0001f600"
    expected = ("h" + whole, "w" + whole, [("f", {"x": whole}), ("g", {"y": whole})])
    assert ("", expected) == (turn.error, said(parsed(turn.reply.message)))
    assert expected == heard(path, relay)[0]


@pytest.mark.parametrize("path", DIALECTS)
@pytest.mark.parametrize("texts", LONE, ids=ascii)
def test_half_a_character_alone_is_an_error(path, texts):
    """As it is in a whole reply: no reader of the log takes it."""
    relay = relayed(
        asked(path, stream=True), wire([ROLE, *(chunk({"content": text}) for text in texts), *END])
    )
    failed(path, relay)
    assert "cannot be read" in relay.captured()[0].error


def test_choices_do_not_join_each_others_halves():
    """Each has its own text."""
    chunks = [
        choices(*({"index": n, "delta": {"content": half}} for n in range(2)))
        for half in (FIRST, SECOND)
    ]
    ends = choices(*({"index": n, "delta": {}, "finish_reason": "stop"} for n in range(2)))
    relay = relayed(asked("/chat/completions", stream=True, n=2), wire([*chunks, ends, DONE]))
    assert ["\U0001f600"] * 2 == [parsed(one.reply.message)["content"] for one in relay.captured()]
