"""What an agent or an engine may send, no reader of the log must refuse later."""

import json

import pytest

from odradek.infra.bus import MemoryAppender
from odradek.proxy.dialects.dialect import Limits
from odradek.schemas import codec
from odradek.schemas.events import Conversation
from odradek.schemas.topics import CONVERSATIONS, DLQ, TURNS
from odradek.streams.drivers.memory import MemoryDriver
from odradek.streams.stages.assembler import ASSEMBLE
from tests.support.schemas.event_builders import opened, reward, sealed
from tests.support.schemas.event_samples import SAMPLES


def nested(levels: int) -> object:
    """A value so many levels deep."""
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


async def call(bench, body) -> int:
    """Status of a chat completion."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, _, _ = await bench.post("/e/e1/v1/chat/completions", data, token=bench.token())
    return status


MESSAGE = b'{"model":"policy","messages":[{"role":"user","content":"%s"}]}'


@pytest.mark.parametrize("text", [b"\xff\xfe", b"\\ud800", b"\\udc00\\ud800", b"\xed\xa0\x80"])
async def test_text_that_is_none_is_refused_and_not_recorded(bench, text):
    """In a message, and in a field that nobody looks at."""
    assert 400 == await call(bench, MESSAGE % text)
    assert 400 == await call(bench, (MESSAGE % b"hi")[:-1] + b',"surprise":"' + text + b'"}')
    assert [] == bench.log.on(TURNS.name)


@pytest.mark.parametrize("text", ["ü".encode(), b"\\ud83d\\ude00", b"\\\\ud800", b"\\u0000"])
async def test_text_that_looks_odd_and_is_right_passes(bench, text):
    """Pairs of surrogates, an escaped backslash before the letters, NUL."""
    assert 200 == await call(bench, MESSAGE % text)
    assert 1 == len(bench.turns())


async def test_the_deepest_call_that_is_taken_becomes_a_conversation(bench):
    """A turn, and the conversation, nest what was sent a few levels deeper: still within bounds."""
    message = {"role": "user", "content": "hi", "deep": nested(56)}
    body = {"model": "policy", "messages": [message]}
    limit = Limits().depth
    while len(body["messages"]) and _depth(body) < limit:
        message["deep"] = [message["deep"]]
    assert limit == _depth(body)
    assert 200 == await call(bench, body)
    message["deep"] = [message["deep"]]
    assert 400 == await call(bench, body)
    log = MemoryAppender(1)
    for event in (opened(), reward()):
        await log.append(TURNS.name, key="e1", value=codec.encode(event))
    (turn,) = bench.log.on(TURNS.name)
    await log.append(TURNS.name, key="e1", value=turn.value)
    event = sealed(n=1, writer=bench.turns()[0].writer)
    await log.append(TURNS.name, key="e1", value=codec.encode(event))
    await MemoryDriver(log, ASSEMBLE).step()
    assert [] == log.on(DLQ.name)
    (made,) = log.on(CONVERSATIONS.name)
    assert isinstance(codec.decode(made.value, Conversation), type(SAMPLES["conversation"]))


def _depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0
