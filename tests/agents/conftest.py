"""A stage for agent hosts: the real broker, a stub of the proxy, and eyes on every topic."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiokafka import TopicPartition

KEYS = "k" * 40
AGENT = "player"


class StubProxy:
    """Seals at once, unless told otherwise, and remembers what was sealed."""

    def __init__(self) -> None:
        self.seals: list[tuple[str, str, str]] = []
        self.tokens: list[str] = []
        self.children: dict[str, list[str]] = {}
        self.status = 200
        self.on_seal: Callable[[str], Any] = lambda episode: None
        self.url = ""

    async def seal(self, request: web.Request) -> web.Response:
        body = await request.json()
        episode = request.match_info["episode"]
        self.tokens.append(request.headers["Authorization"].removeprefix("Bearer "))
        if self.status != 200:
            return web.Response(status=self.status)
        result = self.on_seal(episode)
        if asyncio.iscoroutine(result):
            await result
        self.children[episode] = body.get("children", [])
        self.seals.append((episode, body["outcome"], body["error"]))
        return web.json_response({"writer": "w", "n_turns": 0, "outcome": body["outcome"]})

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["StubProxy"]:
        app = web.Application()
        app.router.add_post("/e/{episode}/seal", self.seal)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield self
        await runner.cleanup()


class Stage:
    """One agent's topics, and hosts that come and go."""

    def __init__(self, bus: Any, proxy: StubProxy, appender: Any) -> None:
        self.bus = bus
        self.proxy = proxy
        self.appender = appender
        self.hosts: dict[Any, asyncio.Task[None]] = {}

    def settings(self, **given: Any) -> Any:
        from odradek.agents.settings import AgentSettings

        return AgentSettings(
            **{"name": AGENT, "proxy_url": self.proxy.url, "grace_s": 0.2, **given}
        )

    async def host(self, play: Any, *, bus: Any = None, trust: Any = None, **given: Any) -> Any:
        from odradek.agents.host.host import Host
        from odradek.agents.runners.load import as_executor
        from odradek.infra.runtime.episode_tokens import TokenSettings

        host = Host(
            self.settings(**given),
            bus or self.bus,
            as_executor(play, "play"),
            tokens=TokenSettings(keys=KEYS),
            trust=trust,
        )
        self.hosts[host] = asyncio.create_task(host.run())
        ready = asyncio.create_task(host.ready.wait())
        await asyncio.wait(
            {ready, self.hosts[host]}, return_when=asyncio.FIRST_COMPLETED, timeout=60
        )
        ready.cancel()
        if self.hosts[host].done():
            await self.hosts[host]
        return host

    async def stop(self, host: Any) -> None:
        host.stop()
        await self.hosts.pop(host)

    def crash(self, host: Any) -> None:
        """Kill a host as kill -9 would: nothing more of it happens."""
        self.hosts.pop(host).cancel()

    async def send(
        self, message: str, *, given: Any = None, partition: int | None = None, **sample: Any
    ) -> None:
        from odradek.agents.binding.requests import SampleAddress, send_headers, send_value
        from odradek.schemas.events import Timeouts, raw

        timeouts = Timeouts(**{"attempt_s": 20.0, "seal_s": 5.0, **sample.pop("timeouts", {})})
        deadline = sample.pop("deadline", None)
        await self.request(
            send_value(
                message,
                raw(given),
                SampleAddress(**{"task_id": "t", "timeouts": timeouts, **sample}),
            ),
            send_headers(deadline=deadline, traceparent=None),
            key=message,
            partition=partition,
        )

    async def request(
        self, value: bytes | None, headers: Any, *, key: str, partition: int | None = None
    ) -> None:
        await self.appender.append(
            f"a2a.requests.{AGENT}", key=key, value=value, headers=headers, partition=partition
        )

    async def cancel(self, episode: str, **more: str) -> None:
        from odradek.agents.binding.requests import cancel_value

        headers = {"a2a-operation": "CancelTask", "a2a-version": "1.0", **more}
        await self.request(
            cancel_value(episode), [(k, v.encode()) for k, v in headers.items()], key=episode
        )

    def named(self, partition: int, n: int) -> list[str]:
        """The first n names m0, m1, … whose requests belong on a partition."""
        from odradek.schemas.ids import partition_for

        names = (f"m{number}" for number in range(1000))
        mine = (one for one in names if partition_for(one, self.bus.topic_partitions) == partition)
        return list(itertools.islice(mine, n))

    def episode(self, message: str, attempt: int = 1) -> str:
        from odradek.schemas import ids

        partitions = self.bus.topic_partitions
        return ids.episode_id(
            message,
            attempt,
            partition=ids.partition_for(message, partitions),
            partitions=partitions,
        )

    async def read(self, topic: str) -> list[Any]:
        """All that committed readers see of a topic now."""
        from odradek.infra.bus import consumer, partitions_of, record_of, running

        found = []
        reader = consumer(self.bus)
        async with running(reader, self.bus):
            wheres: list[TopicPartition] = await partitions_of(reader, self.bus.topic(topic))
            reader.assign(wheres)
            ends = await reader.end_offsets(wheres)
            await reader.seek_to_beginning(*wheres)
            while any([await reader.position(where) < ends[where] for where in wheres]):
                for messages in (await reader.getmany(timeout_ms=50)).values():
                    found += [record_of(message, self.bus) for message in messages]
        return found

    async def story(self) -> list[Any]:
        """The events of `rl.turns.v1`."""
        from odradek.schemas import codec, events

        return [
            codec.decode(record.value, events.TurnsEvent)
            for record in await self.read("rl.turns.v1")
        ]

    async def until(self, condition: Callable[[], Any], timeout: float = 60.0) -> Any:
        """Return what a condition (a function, or one that is awaited) gives once it is true."""
        async with asyncio.timeout(timeout):
            while True:
                found = condition()
                if asyncio.iscoroutine(found):
                    found = await found
                if found:
                    return found
                await asyncio.sleep(0.02)

    async def ended(self, *messages: str, attempt: int = 1) -> None:
        """Return once the terminal status of these messages' tasks is on the events topic."""
        wanted = {self.episode(message, attempt) for message in messages}

        async def there() -> bool:
            records = await self.read(f"a2a.events.{AGENT}")
            return wanted <= {r.key for r in records if ("a2a-end", b"1") in r.headers}

        await self.until(there)


@pytest.fixture
async def proxy() -> AsyncIterator[StubProxy]:
    """A stub of the proxy that only seals."""
    async with StubProxy().running() as stub:
        yield stub


@pytest.fixture
async def stage(bus: Any, proxy: StubProxy) -> AsyncIterator[Stage]:
    """An agent's topics on the real broker."""
    from odradek.infra.bus import KafkaAppender, ensure_topics, rows

    await ensure_topics(bus, rows(agents=[AGENT], clients=["tests"]))
    appender = await KafkaAppender.connect(bus)
    stage = Stage(bus, proxy, appender)
    yield stage
    for host in list(stage.hosts):
        with contextlib.suppress(Exception):
            await stage.stop(host)
    await appender.aclose()


def told(record: Any) -> dict[str, str]:
    """A record's headers."""
    return {name: value.decode() for name, value in record.headers}


def value_of(record: Any) -> Any:
    """A record's JSON."""
    return msgspec.json.decode(record.value)
