"""An agent's events for whoever wants them: from Python, as server-sent events, on the command line."""

import asyncio
import contextlib
import json

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from odradek.agents import subscribe
from odradek.agents.client import KafkaConnection, KafkaTransport
from odradek.agents.errors import InvalidPosition, UnknownState
from odradek.agents.gateway.server import Gateway
from odradek.agents.settings import GatewaySettings
from odradek.agents.subscriptions.position import EventPosition
from tests.support.agents.conformance_agent import ConformanceAgent

from .test_push import serving
from .test_push_configs import message


async def first(stream, n):
    """The first n events of a subscription."""
    events = []
    async with asyncio.timeout(60), contextlib.aclosing(stream):
        async for event in stream:
            events.append(event)
            if len(events) == n:
                return events
    return events


@pytest.fixture
async def agent(stage):
    await stage.host(ConformanceAgent(), training=False)
    async with KafkaConnection(stage.bus) as connection:
        yield KafkaTransport(connection, "player", timeout_s=20.0)


@pytest.mark.broker
async def test_a_subscriber_goes_on_where_it_was(stage, agent):
    """From the beginning, from a position, from a time; by state and by task; and a group shares."""
    tasks = [
        (await agent.send_message(message(f"tck-complete-task-{n}"))).task.id for n in range(5)
    ]
    bus = stage.bus
    everything = [
        event async for event in subscribe("player", since="beginning", follow=False, bus=bus)
    ]
    assert {(task, number) for task in tasks for number in (1, 2)} == {
        (event.task_id, event.generation) for event in everything
    }
    done = await first(subscribe("player", state="completed", since="-1h", bus=bus), 5)
    assert set(tasks) == {event.task_id for event in done}
    assert ["completed"] * 5 == [event.state for event in done]
    assert "TASK_STATE_COMPLETED" == done[0].json["statusUpdate"]["status"]["state"]
    (one, two) = await first(subscribe("player", task_id=tasks[2], since=0, bus=bus), 2)
    assert (("task", 1), ("status_update", 2)) == (
        (one.kind, one.generation),
        (two.kind, two.generation),
    )
    for place in (everything[3].position, str(everything[3].position)):
        rest = [e async for e in subscribe("player", since=place, follow=False, bus=bus)]
        assert 6 == len(rest)
        seen = {(e.task_id, e.generation) for e in everything[:4]}
        assert not seen & {(e.task_id, e.generation) for e in rest}
    shared = {"group": "ours", "since": "beginning", "bus": bus}
    begun = await first(subscribe("player", **shared), 4)
    # The last one was under way when its reader left, so it comes again.
    went_on = await first(subscribe("player", **shared), 7)
    assert begun[-1].value in [event.value for event in went_on]
    assert {e.value for e in everything} == {e.value for e in (*begun, *went_on)}


@pytest.mark.broker
async def test_any_http_client_gets_an_agents_events_as_they_come(stage, agent):
    """By state and by task; one that comes back with the last id misses nothing; one reader feeds all."""
    done = (await agent.send_message(message("tck-complete-task"))).task.id
    settings = GatewaySettings(port=0)
    async with serving(gateway := Gateway(settings, stage.bus)):
        url = f"{gateway.address}/agents/player/events"
        async with httpx.AsyncClient(timeout=60) as http:
            place = await until_events(http, url, {"since": "beginning"}, 2)
            assert [("task", done), ("status_update", done)] == [
                (event["event"], task_of(event)) for event in place
            ]
            begun = [asyncio.Event() for _ in range(3)]
            waiting = [
                asyncio.create_task(until_events(http, url, {"state": "completed"}, 1, begun=each))
                for each in begun
            ]
            for each in begun:
                await each.wait()
            second = (await agent.send_message(message("tck-complete-task-2"))).task.id
            streams = await asyncio.gather(*waiting)
            assert [second] * 3 == [task_of(events[0]) for events in streams]
            again = await until_events(http, url, {}, 2, {"Last-Event-ID": place[-1]["id"]})
            assert [second] * 2 == [task_of(event) for event in again]
            by_task = await until_events(http, url, {"task": done, "since": "-1h"}, 2)
            assert [done] * 2 == [task_of(event) for event in by_task]
            for bad in ({"state": "happy"}, {"since": "soon"}, {"since": "p1.x"}):
                answer = await http.get(url, params=bad)
                assert (400, True) == (answer.status_code, "error" in answer.json())


def task_of(event):
    body = json.loads(event["data"])
    return body["task"]["id"] if "task" in body else body["statusUpdate"]["taskId"]


async def until_events(http, url, params, n, headers=None, begun=None):
    """The first n events of a stream: their fields."""
    begun = begun or asyncio.Event()
    events, fields = [], {}
    async with http.stream("GET", url, params=params, headers=headers) as answer:
        assert "text/event-stream" in answer.headers["content-type"], await answer.aread()
        begun.set()
        async for line in answer.aiter_lines():
            name, _, text = line.partition(": ")
            if line and name:
                fields[name] = text
            elif "data" in fields:
                events.append(fields)
                if len(events) == n:
                    return events
            if not line:
                fields = {}
    return events


@given(st.dictionaries(st.integers(0, 99), st.integers(0, 2**40), max_size=20))
def test_a_position_is_a_text_that_can_be_kept(offsets):
    """And read back as it was; what is none is said to be none."""
    position = EventPosition(offsets)
    assert position == EventPosition.parse(str(position))
    moved = position.after(3, 41)
    assert (42, offsets) == (moved.offsets[3], position.offsets)


@pytest.mark.parametrize(
    "text", ["", "x", "p1", "p1.x", "p1.2-", "p1.2\n", "p²", "p1.2" * 99, "p-1.2"]
)
def test_a_text_that_is_no_position_is_refused(text):
    """In one line."""
    with pytest.raises(InvalidPosition, match="is no position"):
        EventPosition.parse(text)


def test_a_word_that_is_no_state_is_refused_with_those_that_are():
    """Before anything is read."""
    with pytest.raises(UnknownState, match="input-required"):
        subscribe("player", state="happy")
