"""What a chat's agent did not ask for is taken out of each chunk, whatever came before it."""

import itertools

import msgspec
import pytest

from odradek.proxy.dialects.chat import CHAT
from odradek.proxy.dialects.dialect import RequestRules
from odradek.proxy.wire import sse
from odradek.schemas.http.reply import ReplyBody

HEAD = '{"id":"r","created":1,"choices":'
CHOICE = '{"index":0,"delta":{"content":"a"},"logprobs":{"content":[]},"token_ids":[1]}'
CHUNKS = (
    f"{HEAD}[{CHOICE}]}}",
    f'{HEAD}[{CHOICE}],"usage":{{"prompt_tokens":1}}}}',
    f'{HEAD}[],"usage":{{"prompt_tokens":1}}}}',
    f'{HEAD}[{CHOICE}],"prompt_token_ids":[7]}}',
    f'{HEAD}[{CHOICE}],"x":[{CHOICE}]}}',
    f'{HEAD}[{CHOICE}],"choices":[{CHOICE}]}}',
    f'{HEAD}[{CHOICE}],"ch\\u006fices":[{CHOICE}]}}',
    f'{HEAD}[{CHOICE}],"cache_salt":"7","choices":[]}}',
    f'{{"id":"r","prompt_token_ids":[7],"choices":[{CHOICE}]}}',
    f'{{"id":"r","prompt_token_ids":null,"choices":[{CHOICE}]}}',
    f'{{"id":"r","cache_salt":"7","choices":[{CHOICE}]}}',
    f'{{"usage":null,"choices":[{CHOICE}]}}',
    f'{{"a":"\\"choices\\":[","choices":[{CHOICE}]}}',
    f'{{"choices": [ {CHOICE} ] }}',
    f'{{ "choices":[{CHOICE}]}}',
    f'{{"choices":[{CHOICE}]}}',
    f'{{"choices":[{CHOICE},{CHOICE}]}}',
    '{"choices":null}',
    '{"id":"r","created":1}',
    '{"choices":[]}',
    '{"choices":[{"index":0,"delta":{"content":"]}"},"logprobs":null,"finish_reason":"stop"}]}',
    '{"id":"r","choices":[{"index":0,"delta":{"content":"\\"choices\\":[]}"},"token_ids":[2]}]}',
)
ASKED = ({}, {"logprobs": True}, {"return_token_ids": True}, {"include_usage": True})


def _told(stream, text):
    data = text.encode()
    return stream.feed(sse.ServerEvent(sse.event(data), data), ReplyBody())


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: next(iter(asked), "nothing"))
def test_a_chunk_is_trimmed_alike_whatever_came_before_it(asked):
    """Each two and three chunks in a row give the bytes that each gives as the first."""
    options = {"stream_options": asked} if "include_usage" in asked else asked
    body = {"model": "m", "messages": [], "stream": True, **options}
    ask = CHAT.parse(msgspec.json.encode(body), RequestRules())
    alone = {text: _told(CHAT.stream(ask), text) for text in CHUNKS}
    rows = [*itertools.product(CHUNKS, repeat=2), *zip(CHUNKS, CHUNKS[1:], CHUNKS, strict=False)]
    for row in rows:
        stream = CHAT.stream(ask)
        assert [alone[text] for text in row] == [_told(stream, text) for text in row]


def test_nothing_that_was_not_asked_for_is_left_in_a_chunk():
    """Neither ids nor log probabilities of a chunk whose head is known."""
    ask = CHAT.parse(
        msgspec.json.encode({"model": "m", "messages": [], "stream": True}), RequestRules()
    )
    stream = CHAT.stream(ask)
    told = [_told(stream, CHUNKS[0]) for _ in range(3)]
    left = CHUNKS[0].replace('{"content":[]}', "null").replace("[1]", "null")
    assert [sse.event(left.encode())] * 3 == told
