"""A proxy that is killed -9 with streams open, and the one that takes its place."""

import asyncio
import re
import socket
import sys

import msgspec
import pytest
from openai import APIError, AsyncOpenAI

from odradek.infra.app.local_kafka.server import free_ports
from odradek.infra.bus import BusSettings, ensure_topics
from odradek.infra.client import records
from odradek.infra.runtime.episode_tokens import Claims, mint
from odradek.schemas import codec
from odradek.schemas.events import Episode, EpisodeSealed, Outcome, Turn, TurnsEvent
from odradek.streams.stages.assembler import ASSEMBLE
from tests.chaos.faults.broker import Broker
from tests.chaos.faults.tcp_relay import FaultyLink
from tests.support.schemas.event_builders import opened, reward, tell

from .conftest import KEY
from .test_process import environment

pytestmark = pytest.mark.processes

EPISODES = 16
STREAMS = 64
PATIENCE = 30


@pytest.fixture
async def far(tmp_path):
    """A bus, and the slow link to it: the proxy dies with many turns on their way."""
    port = free_ports(1)[0]
    async with FaultyLink(f"127.0.0.1:{port}") as link:
        (tmp_path / "kafka").mkdir()
        async with Broker(tmp_path / "kafka", port=port, advertised=link.port) as broker:
            link.conditions.latency_s = 0.1
            servers = broker.bootstrap_servers
            yield BusSettings(bootstrap_servers=servers, topic_partitions=3), link


class Proxy:
    """A proxy process on a port that stays the same."""

    def __init__(self, bus, engine, log, **more):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._env = environment(bus, engine, ODRADEK_PROXY_PORT=str(self.port), **more)
        self._log = log
        self.child = None

    async def start(self):
        """Start it; return once it is ready."""
        with self._log.open("ab") as log:
            begun = log.tell()
            self.child = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "odradek.infra.app.cli", "proxy", env=self._env, stderr=log
            )
        while b"ready: proxy" not in self._log.read_bytes()[begun:]:
            assert self.child.returncode is None, self._log.read_text()
            await asyncio.sleep(0.02)

    async def kill(self):
        """SIGKILL."""
        if self.child is not None and self.child.returncode is None:
            self.child.kill()
            await self.child.wait()

    def writer(self):
        """The boot id of the newest start."""
        return re.findall(r"proxy (\w+) listens", self._log.read_text())[-1]


class Turnstile:
    """The engine's gate for the second part of each stream: lets so many through, then all."""

    def __init__(self):
        self._places = asyncio.Semaphore(0)
        self._open = False

    def let(self, n):
        for _ in range(n):
            self._places.release()

    def set(self):
        self._open = True
        self.let(10_000)

    async def wait(self):
        if not self._open:
            await self._places.acquire()


class Agent:
    """Asks one question in a stream until it has seen the end of the reply."""

    def __init__(self, url, episode, question):
        self.episode = episode
        self.question = question
        self.seen = ""
        """The text of the reply, once its end was seen."""
        self.begun = asyncio.Event()
        self.disconnected = 0
        self._url = f"{url}/e/{episode}/v1"

    async def ask(self):
        token = mint(Claims(sub=self.episode), [KEY])
        async with AsyncOpenAI(base_url=self._url, api_key=token, max_retries=8) as client:
            while not self.seen:
                try:
                    self.seen = await self._once(client)
                except APIError:
                    self.disconnected += 1
                except Exception as error:
                    # The SDK has no error of its own for a stream that ends in the middle.
                    assert type(error).__module__.startswith("httpx"), error
                    self.disconnected += 1

    async def _once(self, client):
        stream = await client.chat.completions.create(
            model="policy",
            messages=[{"role": "user", "content": self.question}],
            stream=True,
            # A repetition of our own says what it is, as the SDK's own ones do.
            extra_headers={"x-stainless-retry-count": str(self.disconnected)}
            if self.disconnected
            else {},
        )
        text = ""
        async for chunk in stream:
            self.begun.set()
            text += chunk.choices[0].delta.content or "" if chunk.choices else ""
            if chunk.choices and chunk.choices[0].finish_reason:
                return text
        raise AssertionError("a stream without an end and without an error")


async def seal(url, episode):
    """Seal an episode with the host's credential; how many turns its newest writer counts."""
    token = mint(Claims(sub=episode, scope="host"), [KEY])
    async with AsyncOpenAI(base_url=f"{url}/e/{episode}", api_key=token) as host:
        return (await host.post("/seal", body={"outcome": "completed"}, cast_to=object))["n_turns"]


async def all_stories(bus):
    """The events of every episode, from the topic."""
    found = {}
    async for record in records("rl.turns.v1", since="beginning", follow=False, bus=bus):
        found.setdefault(record.key, []).append(codec.decode(record.value, TurnsEvent))
    return found


def said(turn):
    """The text of a turn's reply."""
    return msgspec.json.decode(turn.reply.message)["content"] if turn.reply.message else None


@pytest.mark.broker
@pytest.mark.slow
async def test_a_proxy_killed_with_64_streams_open_loses_no_turn_whose_end_was_seen(
    far, engine, tmp_path
):
    """Those that were cut are marked, asked again, and trained once."""
    bus, link = far
    await ensure_topics(bus)
    proxy = Proxy(bus, engine, tmp_path / "proxy.log")
    agents = [Agent(proxy.url, f"e{n % EPISODES}", f"question {n}") for n in range(STREAMS)]
    try:
        await proxy.start()
        first = proxy.writer()
        engine.gate = gate = Turnstile()
        asking = [asyncio.create_task(agent.ask()) for agent in agents]
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(agent.begun.wait() for agent in agents))
            gate.let(STREAMS // 2)  # these end while the proxy dies; the others are in the middle
            while not any(agent.seen for agent in agents):
                await asyncio.sleep(0)
            await proxy.kill()
            link.conditions.latency_s = 0.0
            gate.set()
        whole = {agent.question for agent in agents if agent.seen and not agent.disconnected}
        await proxy.start()
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*asking)
            for n in range(EPISODES):
                await seal(proxy.url, f"e{n}")
    finally:
        await proxy.kill()
        for task in asking:
            task.cancel()
    assert whole, "no end was seen before the kill"
    assert any(agent.disconnected for agent in agents), "no stream was open at the kill"
    stories = await all_stories(bus)
    trained = 0
    for n in range(EPISODES):
        own = [agent for agent in agents if agent.episode == f"e{n}"]
        story = stories[f"e{n}"]
        turns = [event for event in story if isinstance(event, Turn)]
        in_log = {said(turn) for turn in turns if not turn.disconnected}
        assert {agent.seen for agent in own} <= in_log
        released = {said(turn) for turn in turns if turn.writer == first}
        assert {agent.seen for agent in own if agent.question in whole} <= released
        trained += folded(f"e{n}", story, {agent.seen for agent in own})
    assert STREAMS == trained


def folded(name, story, seen):
    """Fold a story; how many of its turns are trained, which must be those that were seen."""
    out, letters = tell(ASSEMBLE, [opened(name), reward(name), *story])
    assert [] == letters
    assert isinstance(story[-1], EpisodeSealed)
    (episode,) = [event for event in out if isinstance(event, Episode)]
    assert Outcome.COMPLETED is episode.outcome
    turns = [event for event in story if isinstance(event, Turn)]
    trained = [turn for turn in turns if turn.turn_id not in episode.untrained_turns]
    assert seen == {said(turn) for turn in trained}
    return len(trained)
