"""Clients that leave, in every dialect: one sample, and its reply to the retry alone."""

import asyncio

import pytest
from aiohttp import ClientSession

from odradek.proxy.calls.call import RETRY_COUNT

from .test_chunkings import BODIES

ENDS = {
    "/chat/completions": b"[DONE]\n\n",
    "/completions": b"[DONE]\n\n",
    "/messages": b'{"type":"message_stop"}\n\n',
    "/responses": b"}\n\n",
}


@pytest.mark.parametrize("joins", [True, False])
@pytest.mark.parametrize("path", list(BODIES))
async def test_a_client_that_leaves_a_stream_gets_it_whole_when_it_comes_again(
    bench, engine, path, joins
):
    """While the engine still samples it joins; afterwards it takes the reply that nobody got."""
    engine.gate.clear()
    body = {"model": "m", **BODIES[path], "stream": True}
    url = f"/e/e1/v1{path}"
    async with ClientSession() as session:
        headers = {"Authorization": f"Bearer {bench.token()}"}
        async with session.post(bench.url + url, json=body, headers=headers) as answer:
            assert await answer.content.readany()
            answer.close()
    (call,) = {call for story in bench.proxy.episodes for call in story.calls}
    await bench.until(lambda: call.gone)
    if not joins:
        engine.gate.set()
        await bench.until(bench.turns)
    again = asyncio.create_task(
        bench.post(url, body, token=bench.token(), headers={RETRY_COUNT: "1"})
    )
    if joins:
        await bench.until(lambda: call.joined)
        engine.gate.set()
    status, _, told = await again
    assert 200 == status
    assert told.endswith(ENDS[path])
    assert 1 == len(engine.calls)
    turns = bench.turns()
    assert ([False] if joins else [True, False]) == [turn.disconnected for turn in turns]
    assert turns[-1].supersedes == ("" if joins else turns[0].turn_id)
    # A second retry is another sample, and reads as the first one would have.
    status, _, other = await bench.post(url, body, token=bench.token())
    assert (200, 2) == (status, len(engine.calls))
    assert told.count(b"data: ") == other.count(b"data: ")
