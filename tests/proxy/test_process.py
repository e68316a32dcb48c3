"""The proxy as a process of its own, before a real Kafka."""

import asyncio
import os
import re
import signal
import sys
from contextlib import asynccontextmanager

import pytest
from openai import AsyncOpenAI

from odradek.infra.bus import KafkaAppender, consumer, ensure_topics, partitions_of, running
from odradek.infra.runtime.episode_tokens import Claims, mint
from odradek.schemas import codec
from odradek.schemas.events import EpisodeSealed, Policy, Turn, TurnsEvent, VersionSpan

from .conftest import KEY

pytestmark = pytest.mark.processes

COMMAND = (sys.executable, "-m", "odradek.infra.app.cli", "proxy", "--port", "0")


def environment(bus, engine, **more):
    return {
        **os.environ,
        "ODRADEK_KAFKA_BOOTSTRAP_SERVERS": bus.bootstrap_servers,
        "ODRADEK_TOPIC_PREFIX": bus.topic_prefix,
        "ODRADEK_ENGINE_URL": engine.url,
        "ODRADEK_TOKEN_KEYS": KEY,
        **more,
    }


@asynccontextmanager
async def process(env):
    """A proxy process that is ready; (process, address)."""
    child = await asyncio.create_subprocess_exec(*COMMAND, env=env, stderr=asyncio.subprocess.PIPE)
    try:
        seen = ""
        while "ready: proxy" not in seen:
            line = (await child.stderr.readline()).decode()
            assert line, seen
            seen += line
        yield child, re.search(r"listens on (\S+),", seen)[1]
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


async def story_of(bus, episode):
    """All events of an episode, from the topic."""
    async with running(consumer(bus), bus) as reader:
        partitions = await partitions_of(reader, bus.topic("rl.turns.v1"))
        reader.assign(partitions)
        ends = await reader.end_offsets(partitions)
        await reader.seek_to_beginning(*partitions)
        found = []
        for partition in partitions:
            while await reader.position(partition) < ends[partition]:
                batch = await reader.getmany(partition, timeout_ms=1000)
                found += [m for messages in batch.values() for m in messages]
    return [codec.decode(m.value, TurnsEvent) for m in found if m.key == episode.encode()]


@pytest.mark.broker
async def test_a_process_records_calls_in_kafka_and_ends_cleanly(bus, engine):
    """Two turns with the version that the log names, EpisodeSealed behind them, exit code 0.

    The first call, too, is salted with it: the proxy has read the policies before it is ready.
    """
    await ensure_topics(bus)
    log = await KafkaAppender.connect(bus)
    policy = Policy(name="policy", version=4, uri="file:///w")
    headers = codec.headers(policy, source="/test", subject="policy", event_id="1")
    await log.append("rl.policies.v1", key="policy", value=codec.encode(policy), headers=headers)
    await log.aclose()
    engine.mode = "no_versions"
    async with process(environment(bus, engine)) as (child, url):
        token = mint(Claims(sub="e1"), [KEY])
        async with AsyncOpenAI(base_url=f"{url}/e/e1/v1", api_key=token) as agent:
            messages = [{"role": "user", "content": "x"}]
            reply = await agent.chat.completions.create(model="m", messages=messages)
            messages += [reply.choices[0].message, {"role": "user", "content": "y"}]
            await agent.chat.completions.create(model="m", messages=messages)
        host = mint(Claims(sub="*", scope="host"), [KEY])
        async with AsyncOpenAI(base_url=f"{url}/e/e1", api_key=host) as sealer:
            answer = await sealer.post("/seal", body={"outcome": "completed"}, cast_to=object)
        assert answer["n_turns"] == 2
        child.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(child.wait(), 60) == 0
    first, second, sealed = await story_of(bus, "e1")
    assert isinstance(first, Turn)
    assert isinstance(sealed, EpisodeSealed)
    assert ["4", "4"] == [asked["cache_salt"] for asked in engine.calls]
    for turn in (first, second):
        n = len(turn.completion.ids) // 4
        assert ("inferred", (VersionSpan(4, 0, n),)) == (turn.versions_from, turn.versions)
        assert 4 == turn.cache_salt
    # The agent wrote the reply back with its own spacing, and without nulls that it never saw.
    assert first.turn_id == second.request.base == second.prompt.base
    assert second.prompt.prefix_len == len(first.prompt.ids + first.completion.ids) // 4


@pytest.mark.broker
@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"ODRADEK_TOKEN_KEYS": ""}, "ODRADEK_TOKEN_KEYS"),
        ({"ODRADEK_PROXY_HOST": "0.0.0.0", "ODRADEK_PROXY_AUTH": "none"}, "refusing to listen"),
        ({"ODRADEK_TOPIC_PREFIX": "absent."}, "odradek topics apply"),
        ({"ODRADEK_KAFKA_BOOTSTRAP_SERVERS": ""}, "odradek kafka start"),
        ({"ODRADEK_PROXY_DURABILITY": "maybe"}, "durability"),
    ],
)
async def test_a_mistake_is_one_line_and_exit_code_2(bus, engine, more, told):
    """It says what to do."""
    env = environment(bus, engine, **more)
    child = await asyncio.create_subprocess_exec(*COMMAND, env=env, stderr=asyncio.subprocess.PIPE)
    _, said = await asyncio.wait_for(child.communicate(), 60)
    assert child.returncode == 2, said
    assert told in said.decode()
    assert "Traceback" not in said.decode()
    assert len(said.decode().strip().splitlines()) == 1


@pytest.mark.broker
async def test_a_port_in_use_is_one_line(bus, engine):
    """It names the port and the setting."""
    await ensure_topics(bus)
    port = engine.url.rsplit(":", 1)[1]
    env = environment(bus, engine)
    child = await asyncio.create_subprocess_exec(
        *COMMAND[:-1], port, env=env, stderr=asyncio.subprocess.PIPE
    )
    _, said = await asyncio.wait_for(child.communicate(), 60)
    assert child.returncode == 2, said
    assert f"{port}" in said.decode()
    assert "ODRADEK_PROXY_PORT" in said.decode().splitlines()[-1]
