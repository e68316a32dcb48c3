"""Streams of the gateway go on where they broke: another gateway, another host, later."""

import asyncio
import contextlib
import json

import httpx
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from odradek.infra.bus import admin, running
from tests.support.agents.conformance_agent import ConformanceAgent
from tests.support.agents.gateways import serving

from .test_operations import Clerk


@contextlib.asynccontextmanager
async def stream(gateway, body=None, *, task="", after=""):
    """The events of a stream, as (id, kind of event, its text)."""
    url = f"{gateway.address}/agents/player/v1"
    headers = {"A2A-Version": "1.0", **({"Last-Event-ID": after} if after else {})}

    async def events(answer):
        name = ""
        async for line in answer.aiter_lines():
            field, _, text = line.partition(": ")
            if field == "id":
                name = text
            elif field == "data":
                yield name, json.loads(text)

    address = f"{url}/tasks/{task}:subscribe" if task else f"{url}/message:stream"
    async with (
        httpx.AsyncClient(timeout=60) as http,
        http.stream("POST", address, json=body, headers=headers) as answer,
    ):
        if answer.status_code != 200:
            raise AssertionError(await answer.aread())
        yield events(answer)


async def whole(gateway, body=None, **more):
    async with stream(gateway, body, **more) as events:
        return [event async for event in events]


def message(name, text="x"):
    return {"message": {"messageId": name, "role": "ROLE_USER", "parts": [{"text": text}]}}


@pytest.mark.broker
async def test_a_stream_goes_on_behind_any_of_its_events_at_another_gateway(stage):
    """Also when the task is over by then; with another id it begins with the task."""
    await stage.host(ConformanceAgent(), training=False)
    async with serving(stage.bus) as first, serving(stage.bus) as second:
        body = message("tck-stream-001")
        shown = await whole(first, body)
        kinds = [next(iter(event)) for _, event in shown]
        assert ["task", "statusUpdate", "artifactUpdate", "statusUpdate"] == kinds
        task = shown[0][1]["task"]["id"]
        for seen, (name, _) in enumerate(shown, start=1):
            assert shown[seen:] == await whole(second, body, after=name)
            assert shown[seen:] == await whole(second, task=task, after=name)
        partition, offset, generation = (int(part) for part in shown[0][0].split("."))
        other = f"{partition + 1}.{offset}.{generation}"
        future = f"{partition}.{offset + 999}.{generation}"
        for name in ("nonsense", "1.2", other, future):
            (again,) = await whole(second, body, after=name)
            assert ["task", "TASK_STATE_COMPLETED"] == [
                next(iter(again[1])), again[1]["task"]["status"]["state"],
            ]  # fmt: skip


@pytest.mark.broker
async def test_a_stream_whose_next_events_retention_deleted_goes_on_with_the_task(stage):
    """While the task goes on, with its later events behind it; once it is over, it alone."""
    clerk = Clerk()
    await stage.host(clerk, training=False)
    async with serving(stage.bus) as first, serving(stage.bus) as second:
        shown = []
        async with stream(first, message("m1", "chunks")) as events:
            while sum("artifactUpdate" in event for _, event in shown) < 3:
                shown.append(await anext(events))
        task, seen = shown[0][1]["task"]["id"], shown[0][0]
        partition, newest, _ = (int(part) for part in shown[-1][0].split("."))
        where = TopicPartition(stage.bus.topic("a2a.events.player"), partition)
        async with running(admin(stage.bus), stage.bus) as client:
            await client.delete_records({where: RecordsToDelete(before_offset=newest)})
        async with stream(second, task=task, after=seen) as events:
            _, begins = await anext(events)
            assert 3 == len(begins["task"]["artifacts"])
            clerk.go.set()
            later = [event async for _, event in events]
        assert ["statusUpdate"] == [next(iter(event)) for event in later]
        (whole_task,) = await whole(second, task=task, after=seen)
        assert (seen, "TASK_STATE_COMPLETED") == (
            whole_task[0], whole_task[1]["task"]["status"]["state"],
        )  # fmt: skip


@pytest.mark.broker
async def test_a_stream_survives_its_gateway_and_its_host(stage):
    """Its client connects again, with the last id: no event is missing, and none comes twice."""
    dead = await stage.host(Clerk(), training=False, instance="a")
    seen = []
    async with serving(stage.bus) as first:
        async with stream(first, message("m1", "chunks")) as events:
            for _ in range(2):
                seen.append(await anext(events))
    async with serving(stage.bus, stream_s=2.0) as second:
        task = seen[0][1]["task"]["id"]
        seen += await whole(second, task=task, after=seen[-1][0])  # ends after `stream_s`
        assert ["task", *["artifactUpdate"] * 3] == [next(iter(event)) for _, event in seen]
        for owned in dead._owned.values():
            for run in owned.runs.values():
                run.lose()
        stage.crash(dead)
        await stage.host(Clerk(), training=False, instance="a")
        seen += await asyncio.wait_for(whole(second, task=task, after=seen[-1][0]), 60)
    assert [1, 2, 3, 4, 5] == [int(name.split(".")[2]) for name, _ in seen]
    assert "TASK_STATE_FAILED" == seen[-1][1]["statusUpdate"]["status"]["state"]
