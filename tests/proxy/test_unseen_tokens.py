"""What is trained on is what the agent saw, in every dialect, streamed and whole.

Where nobody knows what it saw, or whose tokens they are, the turn says so and is not trained on.
"""

import json

import pytest

from odradek.proxy.calls import capture
from odradek.proxy.calls.engine_request import EngineAnswer
from odradek.proxy.wire import shapes, sse
from odradek.schemas.arrays import unpack_ids
from odradek.schemas.events import parsed
from tests.support.engines.engine_shapes import DONE, event

from .test_chunkings import relayed
from .test_reply_shapes import ROUTES, asked, heard, heard_whole

TEXTS = "/completions"
MANY = ["/chat/completions", TEXTS]
"""Dialects in which a call may ask for several choices."""


def words(path, text, ids, index=0, finish=None, *, whole=False, **more):
    """A choice of a reply, or of a chunk: what it says, and its tokens (None: not a word of them)."""
    said = {"text": text} if path == TEXTS else {"message" if whole else "delta": {"content": text}}
    if whole and path != TEXTS:
        said["message"]["role"] = "assistant"
    values = None if ids is None else [-0.5] * len(ids)
    listed = (
        {"token_logprobs": values}
        if path == TEXTS
        else {"content": [{"logprob": value} for value in values or ()]}
    )
    prompt = {"prompt_token_ids": [1, 2]} if path == TEXTS else {}
    return {
        "index": index, **said, "token_ids": ids, "logprobs": listed if ids is not None else None,
        "finish_reason": finish, **prompt, **more,
    }  # fmt: skip


def body(*choices, **more):
    return {"id": "c1", "choices": list(choices), "prompt_token_ids": [1, 2], **more}


def streamed(path, *chunks, n=1, tail=DONE):
    """The relay over these choices, a chunk each, or over whole chunks."""
    bodies = [one if "choices" in one else body(one) for one in chunks]
    more = {"n": n} if n > 1 else {}
    return relayed(asked(path, stream=True, **more), [*map(event, bodies), tail])


def taken(path, *choices, n=1, **more):
    ask = asked(path, **({"n": n} if n > 1 else {}))
    return capture.whole(EngineAnswer(200, {}, json.dumps(body(*choices, **more)).encode()), ask)


def why(turns):
    """Why each turn is not trained on."""
    assert not any(turn.error for turn in turns)
    return [turn.untrainable for turn in turns]


def said(turn):
    return parsed(turn.reply.message)["content"]


routes = pytest.mark.parametrize("path", ROUTES)


@routes
@pytest.mark.parametrize("index", [0, 1, 2, 127, 2**16, 2**40, -1])
def test_the_one_choice_is_the_first_whatever_its_number(path, index):
    """Some engines count from 1: the agent sees the reply, and the turn is that reply."""
    relay = streamed(
        path, words(path, "s", [7], index), words(path, "o", [8], index), words(path, "", [9], index, "stop")
    )  # fmt: skip
    (turn,), (one,) = (
        relay.captured(),
        taken(path, words(path, "so", [7, 8, 9], index, "stop", whole=True))[0],
    )
    answer = taken(path, words(path, "so", [7, 8, 9], index, "stop", whole=True))[1]
    assert "so" == heard(path, relay)[0][1] == heard_whole(path, answer)[0][1]
    for found in (turn, one):
        assert ("", 0, "so") == (found.untrainable, found.choice, said(found))
        assert [7, 8, 9] == unpack_ids(found.completion.ids).tolist()
    if path in MANY:
        told = b"".join(relay.pieces) + answer.chunks[0]
        assert b'"index":0' in told.replace(b": ", b":")
        assert index == 0 or f'"index":{index}'.encode() not in told.replace(b": ", b":")


@routes
@pytest.mark.parametrize("indexes", [(0, 1), (1, 0), (1, 2), (0, 0), (5, 5), (0, 1, 2), (-1, 0)])
@pytest.mark.parametrize("together", [True, False])
def test_of_more_choices_than_were_asked_for_none_is_trained_on(path, indexes, together):
    """An agent sees one of them, or all mixed, and nobody knows which."""
    choices = [words(path, f"w{n}", [7 + n], i, "stop") for n, i in enumerate(indexes)]
    if together or len(set(indexes)) == len(indexes):
        relay = streamed(path, *([body(*choices)] if together else choices))
        assert {"unexpected_choices"} == set(why(relay.captured()))
    whole = [words(path, f"w{n}", [7 + n], i, "stop", whole=True) for n, i in enumerate(indexes)]
    found, answer = taken(path, *whole)
    assert ["unexpected_choices"] * len(indexes) == why(found)
    assert [*range(len(indexes))] == sorted(turn.choice for turn in found)
    if path not in MANY:
        shown = heard_whole(path, answer)[0][1]
        assert shown == said(next(turn for turn in found if turn.choice == 0))


@pytest.mark.parametrize("path", MANY)
@pytest.mark.parametrize(
    ("n", "indexes", "expected"),
    [
        (2, (0, 1), ""), (2, (1, 0), ""), (2, (0,), ""), (2, (1,), ""), (3, (2, 0, 1), ""),
        (2, (1, 2), "unexpected_choices"), (2, (0, 1, 2), "unexpected_choices"), (2, (0, 2), "unexpected_choices"),
        (2, (-1, 0), "unexpected_choices"), (3, (1, 2, 3), "unexpected_choices"),
    ],
)  # fmt: skip
def test_several_choices_are_those_that_were_asked_for_or_none(path, n, indexes, expected):
    """In whatever order they come; one that is left out harms no other."""
    chunks = [words(path, f"w{i}", [7], i, "stop") for i in indexes]
    assert [expected] * len(indexes) == why(streamed(path, *chunks, n=n).captured())
    whole = [words(path, f"w{i}", [7], i, "stop", whole=True) for i in indexes]
    found, _ = taken(path, *whole, n=n)
    assert [expected] * len(indexes) == why(found)
    if not expected:
        assert [f"w{turn.choice}" for turn in found] == [*map(said, found)]


def test_choices_of_several_prompts_are_counted_together():
    """Each is of its own prompt, so one that has no number of theirs is of none."""
    for indexes, expected in (
        ((0, 1), ""),
        ((1, 2), "unexpected_choices"),
        ((0, 1, 2), "unexpected_choices"),
    ):
        ask = asked(TEXTS)
        prompts = tuple(ask.messages) * 2
        ask = type(ask)(
            **{**{f: getattr(ask, f) for f in ask.__struct_fields__}, "prompts": prompts}
        )
        whole = [words(TEXTS, "x", [7], i, "stop", whole=True) for i in indexes]
        found, _ = capture.whole(EngineAnswer(200, {}, json.dumps(body(*whole)).encode()), ask)
        assert [expected] * len(indexes) == why(found)


HOLES = [
    ([([7], "s"), (None, "o"), ([9], "")], None, "no_token_ids"),
    ([([7], "s"), (None, "o"), ([9], "")], 2, "no_token_ids"),
    ([([7], "s"), (None, "o"), ([9], "")], 3, "no_token_ids"),
    ([(None, "s"), ([8], "o"), ([9], "")], None, "no_token_ids"),
    ([(None, "s"), ([8], "o"), ([9], "")], 3, "length_mismatch"),
    ([([7], "s"), ([8], "o"), (None, "!")], None, "no_token_ids"),
    ([(None, "s"), (None, "o"), ([7, 8, 9], "")], None, "no_token_ids"),
    ([(None, "s"), (None, "o"), ([7, 8, 9], "")], 3, ""),
    ([(None, ""), ([7], "s"), ([8], "o")], None, ""),
    ([([7], "s"), (None, ""), ([8], "o")], None, ""),
    ([([7, 8], ""), ([], "so"), ([9], "")], 3, ""),
    ([([7], "s"), ([8], "o"), (None, "")], 2, ""),
    ([(None, "s"), (None, "o"), (None, "")], None, "no_token_ids"),
    ([([], "s"), ([], "o"), ([], "")], None, "no_logprobs"),
]


@routes
@pytest.mark.parametrize(("pieces", "counted", "expected"), HOLES)
def test_words_without_ids_among_others_with_ids_are_a_hole(path, pieces, counted, expected):
    """Unless the engine counts as many tokens as there are; one that holds words back has said all."""
    chunks = [words(path, text, ids) for ids, text in pieces]
    usage = {} if counted is None else {"usage": {"prompt_tokens": 2, "completion_tokens": counted}}
    relay = streamed(path, *chunks, words(path, "", None, finish="stop"), body(**usage))
    assert [expected] == why(relay.captured())
    assert "".join(text for _, text in pieces) == heard(path, relay)[0][1]


CALL = {
    "tool_calls": [
        {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    ]
}
KINDS = [CALL, {"reasoning": "hm"}, {"reasoning_content": "hm"}, {"refusal": "no"},
         {"function_call": {"name": "f", "arguments": "{}"}}]  # fmt: skip


@pytest.mark.parametrize("path", [path for path in ROUTES if path != TEXTS])
@pytest.mark.parametrize("delta", KINDS, ids=str)
def test_whatever_was_sampled_is_words(path, delta):
    """Calls and thoughts as well as text."""
    hole = {"index": 0, "delta": delta, "token_ids": None}
    relay = streamed(path, words(path, "s", [7]), hole, words(path, "", [9], finish="stop"))
    assert ["no_token_ids"] == why(relay.captured())


BEHIND = [
    lambda path: event(body(words(path, "more", [9]))),
    lambda path: event(body(words(path, "more", [9], finish="length"))),
    lambda path: event(body(words(path, "more", [9], 1, "stop"))),
    lambda path: event(body(usage={"prompt_tokens": 2, "completion_tokens": 7})),
    lambda path: event({"error": {"message": "late"}}),
    lambda path: b"event: error\ndata: late\n\n",
    lambda path: b"data: no json\n\n",
    lambda path: DONE,
    lambda path: b"data: more\n\n" + DONE,
]


@routes
@pytest.mark.parametrize("behind", BEHIND)
def test_nothing_behind_the_end_of_a_stream_counts(path, behind):
    """No client reads on there: neither it nor the turn has any of it."""
    chunks = [words(path, "so", [7]), words(path, "", [8], finish="stop")]
    relay = streamed(path, *chunks, tail=DONE + behind(path))
    assert b"".join(streamed(path, *chunks).pieces) == b"".join(relay.pieces)
    (turn,) = relay.captured()
    assert ("", "", "so", "stop") == (
        turn.error,
        turn.untrainable,
        said(turn),
        turn.reply.finish_reason,
    )
    assert [7, 8] == unpack_ids(turn.completion.ids).tolist()


@routes
@pytest.mark.parametrize(
    ("behind", "expected"),
    [
        (("more", [9]), "text_after_end"), (("more", None), "no_token_ids"), (("more", []), "text_after_end"),
        (("", [9]), ""), (("", None), ""), (("", []), ""),
    ],
)  # fmt: skip
@pytest.mark.parametrize("finish", [None, "stop", "length"])
def test_words_behind_a_choices_own_end_are_seen_by_some_clients_only(
    path, behind, expected, finish
):
    """Many stop reading at a finish reason; tokens without words are no matter."""
    chunks = [
        words(path, "so", [7]),
        words(path, "", [8], finish="stop"),
        words(path, *behind, 0, finish),
    ]
    assert [expected] == why(streamed(path, *chunks).captured())


PROMPTS = [([], "no_token_ids"), (None, "no_token_ids"), ([1], "")]


@routes
@pytest.mark.parametrize(("prompt", "expected"), PROMPTS)
def test_a_reply_without_a_prompt_answers_nothing(path, prompt, expected):
    """Its first token would be conditioned on nothing."""
    of = {"prompt_token_ids": prompt}
    inner = of if path == TEXTS else {}
    relay = streamed(path, body(words(path, "so", [7], finish="stop", **inner), **of))
    assert [expected] == why(relay.captured())
    found, _ = taken(path, words(path, "so", [7], 0, "stop", whole=True, **inner), **of)
    assert [expected] == why(found)


@routes
def test_an_empty_prompt_is_no_prompt_yet(path):
    """Another chunk may have it."""
    inner = [{"prompt_token_ids": []}, {"prompt_token_ids": [5, 6]}]
    relay = streamed(
        path,
        body(words(path, "so", [7], **(inner[0] if path == TEXTS else {})), **inner[0]),
        body(words(path, "", [8], 0, "stop", **(inner[1] if path == TEXTS else {})), **inner[1]),
    )
    (turn,) = relay.captured()
    assert ("", [5, 6]) == (turn.untrainable, unpack_ids(turn.prompt).tolist())


@routes
@pytest.mark.parametrize("index", [0, 1])
def test_a_whole_reply_to_a_call_for_a_stream_is_read_alike(path, index):
    """Some gateways answer so, whatever they are asked."""
    ask = asked(path, stream=True)
    reply = json.dumps(body(words(path, "so", [7, 8], index, "stop", whole=True))).encode()
    relay = relayed(ask, [*map(sse.event, shapes.chunks(reply, ask.dialect.read)), DONE])
    (turn,) = relay.captured()
    assert ("", "so", "so") == (turn.untrainable, said(turn), heard(path, relay)[0][1])


LIVE = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "x"}]},
    "/v1/messages": {"messages": [{"role": "user", "content": "x"}], "max_tokens": 9},
    "/v1/responses": {"input": "x"},
    "/v1/models/m:generateContent": {"contents": [{"parts": [{"text": "x"}]}]},
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("shift", "more", "expected"), [(1, 0, [""]), (0, 1, ["unexpected_choices"] * 2)]
)
@pytest.mark.parametrize("path", LIVE)
async def test_an_agent_is_served_whatever_its_engine_counts(
    bench, engine, path, shift, more, expected, stream
):
    """Over the wire, and as the log has it."""
    reply, chunks = engine.reply, engine.chunks

    def counted(told):
        for choice in told["choices"]:
            choice["index"] += shift
        return told

    engine.reply = lambda asked: counted(reply({**asked, "n": 1 + more}))
    engine.chunks = lambda asked: map(counted, chunks({**asked, "n": 1 + more}))
    body = {**LIVE[path], **({} if "models" in path else {"stream": stream})}
    path = path.replace("generate", "streamGenerate") if stream and "models" in path else path
    status, _, answer = await bench.post("/e/e1" + path, body, token=bench.token())
    assert 200 == status
    assert expected == [turn.untrainable for turn in bench.turns()]
    assert [*range(1 + more)] == [turn.choice for turn in bench.turns()]
    if not stream:
        assert said(bench.turns()[0]).encode() in answer
