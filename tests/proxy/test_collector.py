"""What a call leaves behind."""

import gc

import pytest

from odradek.proxy.calls.call import ModelCall
from odradek.proxy.calls.keepalive import AgentStream
from odradek.proxy.calls.stream import StreamRelay

KINDS = (ModelCall, AgentStream, StreamRelay)


@pytest.fixture
def uncollected():
    """Nothing is freed but by its last reference."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.usefixtures("uncollected")
async def test_a_call_leaves_nothing_for_the_collector(make, stream):
    """A good reply's memory is free once its call is over, and waits for no full collection."""
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    async with make() as bench:
        for _ in range(3):
            await bench.post("/e/e1/v1/chat/completions", body, token=bench.token("e1"))
        await bench.until(lambda: not alive())
        assert alive() == []


def alive():
    """What is left of calls."""
    return [thing for thing in gc.get_objects() if type(thing) in KINDS]
