"""Streams of the gateway: each event as the log has it, and streams that go on where they broke."""

import asyncio
import json

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from odradek.agents.client.event_tail import EventPlace
from odradek.agents.gateway.sse import PING, EventResponse
from tests.support.agents.conformance_agent import ConformanceAgent
from tests.support.agents.gateways import serving

VERSION = {"A2A-Version": "1.0"}
NUMBERS = st.integers(min_value=0, max_value=10**9 - 1)


@given(NUMBERS, NUMBERS, NUMBERS)
def test_a_place_is_read_as_it_was_written(partition, offset, generation):
    """As a client sends it back."""
    place = EventPlace(partition, offset, generation)
    assert place == EventPlace.read(str(place))


@pytest.mark.parametrize("text", ["", "1.2", "1.2.3.4", "-1.2.3", "a.b.c", "1.2.3\n", "١.٢.٣"])
def test_any_other_text_is_no_place(text):
    """A client may send any id."""
    assert EventPlace.read(text) is None


def events_of(answer):
    """(id, data) of each event of a stream."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    blocks = [block for block in answer.text.split("\r\n\r\n") if block.startswith("id: ")]
    lines = [block.split("\r\n") for block in blocks]
    return [
        (first.removeprefix("id: "), json.loads(second.removeprefix("data: ")))
        for first, second in lines
    ]


def body(name):
    """A message as JSON."""
    return {"message": {"messageId": name, "role": "ROLE_USER", "parts": [{"text": "x"}]}}


@pytest.mark.broker
async def test_a_stream_goes_on_behind_its_last_event_at_any_gateway(stage):
    """Over REST and JSON-RPC the same events; none twice, none left out, the end among them."""
    await stage.host(ConformanceAgent(), training=False, idempotent=False)
    async with (
        serving(stage.bus) as first,
        serving(stage.bus) as second,
        httpx.AsyncClient(timeout=60, headers=VERSION) as http,
    ):
        url = f"{first.address}/agents/player"
        whole = events_of(
            await http.post(f"{url}/v1/message:stream", json=body("tck-stream-artifact-chunked"))
        )
        kinds = [next(iter(data)) for _, data in whole]
        assert ["task", "statusUpdate", "artifactUpdate", "artifactUpdate", "statusUpdate"] == kinds
        task = whole[0][1]["task"]["id"]

        rest = f"{second.address}/agents/player/v1/tasks/{task}:subscribe"
        for number, (place, _) in enumerate(whole):
            if number == len(whole) - 1:
                continue  # a client that has the end asks no more
            again = events_of(await http.get(rest, headers={"Last-Event-ID": place}))
            assert whole[number + 1 :] == again

        partition, offset, generation = map(int, whole[1][0].split("."))
        elsewhere = f"{partition + 1}.{offset}.{generation}"
        assert 400 == (await http.get(rest, headers={"Last-Event-ID": elsewhere})).status_code
        foreign = rest.replace(task, "another")
        assert 404 == (await http.get(foreign, headers={"Last-Event-ID": whole[0][0]})).status_code

        call = {
            "jsonrpc": "2.0", "id": "c", "method": "SendStreamingMessage",
            "params": body("tck-stream-003"),
        }  # fmt: skip
        by_rpc = events_of(await http.post(url, json=call))
        assert ["task", "statusUpdate", "artifactUpdate", "statusUpdate"] == [
            next(iter(data["result"])) for _, data in by_rpc
        ]
        assert {("2.0", "c")} == {(data["jsonrpc"], data["id"]) for _, data in by_rpc}


@pytest.mark.broker
async def test_what_cannot_stream_is_said_before_the_stream_begins(stage):
    """As the protocol's error, over both."""
    await stage.host(ConformanceAgent(), training=False, idempotent=False)
    async with (
        serving(stage.bus) as gateway,
        httpx.AsyncClient(timeout=60, headers=VERSION) as http,
    ):
        url = f"{gateway.address}/agents/player"
        assert 404 == (await http.get(f"{url}/v1/tasks/nobody:subscribe")).status_code
        assert 400 == (await http.post(f"{url}/v1/message:stream", content=b"[")).status_code
        call = {"jsonrpc": "2.0", "id": 1, "method": "SubscribeToTask", "params": {"id": "nobody"}}
        codes = [-32001, -32602, -32600, -32009]
        answers = [
            await http.post(url, json=call),
            await http.post(url, json={**call, "params": {"id": 7}}),
            await http.post(url, json={**call, "id": True}),
            await http.post(url, json=call, headers={"A2A-Version": "0.3"}),
        ]
        assert codes == [answer.json()["error"]["code"] for answer in answers]


class Connection:
    """An ASGI server's side of one connection."""

    def __init__(self):
        self.sent = []
        self.left = asyncio.Event()

    async def receive(self):
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.sent.append(message.get("body"))

    async def serve(self, frames, **more):
        await EventResponse(frames, **more)({"type": "http"}, self.receive, self.send)


async def test_frames_go_out_as_they_are_and_then_the_response_is_over():
    """The head has no body."""

    async def frames():
        yield b"a"
        yield b"b"

    connection = Connection()
    await connection.serve(frames())
    assert [None, b"a", b"b", b""] == connection.sent


async def test_a_stream_on_which_nothing_happens_sends_comments():
    """So that nobody on the way hangs up."""
    pinged = asyncio.Event()

    async def frames():
        await pinged.wait()
        yield b"a"

    class Pinged(Connection):
        async def send(self, message):
            await super().send(message)
            if message.get("body") == PING:
                pinged.set()

    connection = Pinged()
    await connection.serve(frames(), ping_s=0.01)
    assert PING in connection.sent
    assert [b"a", b""] == [body for body in connection.sent[1:] if body != PING]


async def test_a_client_that_leaves_closes_its_stream():
    """Nothing is read for it any more."""
    connection, closed = Connection(), asyncio.Event()

    async def frames():
        try:
            yield b"a"
            connection.left.set()
            await asyncio.Event().wait()
        finally:
            closed.set()

    await connection.serve(frames())
    assert closed.is_set()
    assert [None, b"a"] == connection.sent


async def test_a_mistake_while_a_stream_goes_on_is_not_swallowed():
    """The server sees it."""

    async def frames():
        yield b"a"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await Connection().serve(frames())
