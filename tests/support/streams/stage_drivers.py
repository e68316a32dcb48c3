"""One face for every driver: a world in which stages run, crash and come back."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from odradek.infra.app.backlog import BacklogCount
from odradek.infra.bus import (
    BusSettings,
    KafkaAppender,
    MemoryAppender,
    Record,
    ensure_topics,
    to_end,
)
from odradek.schemas import codec
from odradek.schemas.topics import TURNS, Topic
from odradek.streams.drivers.faust import FaustDriver
from odradek.streams.drivers.kafka import KafkaDriver
from odradek.streams.drivers.memory import MemoryDriver
from odradek.streams.stage import Stage
from tests.support.schemas.event_builders import key_of


class Crashed(BaseException):
    """Raised at a crash point: nothing between there and the test may catch it."""


class MemoryWorld:
    """Stages over a log in memory."""

    exactly_once = True

    def __init__(self) -> None:
        self.log = MemoryAppender(partitions=3)
        self.drivers: dict[str, MemoryDriver] = {}
        self.shift = 0.0

    async def run(self, *stages: Stage) -> None:
        """Start stages, or start them again."""
        for stage in stages:
            self.drivers.setdefault(stage.name, MemoryDriver(self.log, stage))

    async def crash(self, stage: Stage) -> None:
        """End a stage without letting it commit."""
        self.drivers[stage.name].crash()

    async def write(self, event: Any, topic: Topic = TURNS, **more: Any) -> None:
        """Append an event, or bytes under `key`."""
        raw = isinstance(event, bytes) or event is None
        await self.log.append(
            topic.name,
            key=more.get("key") if raw else key_of(event, topic),
            value=event if raw else codec.encode(event),
        )

    async def pass_time(self, seconds: float) -> None:
        """Let time pass; what stands in the log was appended before."""
        await self.until(TURNS, 0)
        self.shift += seconds

    async def at_rest(self) -> dict[str, int]:
        """Nothing is behind: what each stage was given it has folded."""
        return {}

    async def until(self, topic: Topic, n: int) -> list[Record]:
        """Wait for n records on a topic."""
        for _ in range(10):
            for driver in self.drivers.values():
                driver.now = self.shift
                await driver.step()
        found = self.log.on(topic.name)
        assert n <= len(found), [record.value for record in found]
        return found

    async def end(self) -> None:
        """Stop everything."""


class KafkaWorld:
    """Stages on the Kafka driver."""

    exactly_once = True

    def __init__(self, bus: BusSettings) -> None:
        self.bus = bus
        self.appender: KafkaAppender | None = None
        self.running: dict[str, tuple[Any, asyncio.Task[None]]] = {}

    def driver(self, stage: Stage, **more: Any) -> Any:
        """The driver of this world."""
        return KafkaDriver(self.bus, stage, **more)

    async def run(self, *stages: Stage, **more: Any) -> None:
        """Start stages, or start them again."""
        if self.appender is None:
            await ensure_topics(self.bus)
            self.appender = await KafkaAppender.connect(self.bus)
        for stage in stages:
            driver = self.driver(stage, **more)
            task = asyncio.create_task(driver.run())
            self.running[stage.name] = (driver, task)
        for driver, task in self.running.values():
            waiting = asyncio.create_task(driver.ready.wait())
            await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                waiting.cancel()
                task.result()

    async def crash(self, stage: Stage) -> None:
        """End a stage without letting it commit."""
        _, task = self.running.pop(stage.name)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def write(self, event: Any, topic: Topic = TURNS, **more: Any) -> None:
        """Append an event, or bytes under `key`."""
        raw = isinstance(event, bytes) or event is None
        await self.appender.append(
            topic.name,
            key=more.get("key") if raw else key_of(event, topic),
            value=event if raw else codec.encode(event),
        )

    async def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        await asyncio.sleep(seconds)

    async def at_rest(self) -> dict[str, int]:
        """Wait until each stage that runs has nothing left to do; what is left, by process."""
        deadline = time.monotonic() + 60
        async with BacklogCount.connect(self.bus) as count:
            while True:
                lags = [lag for lag in await count.take() if lag.group in self.running]
                left = {lag.process: lag.lag for lag in lags if lag.lag}
                if not left or time.monotonic() > deadline:
                    return left
                await asyncio.sleep(0.05)

    async def until(self, topic: Topic, n: int) -> list[Record]:
        """Wait for n records on a topic."""
        deadline = time.monotonic() + 60
        while True:
            for _, task in self.running.values():
                if task.done():
                    task.result()
            found = [record async for record in to_end(self.bus, topic.name)]
            if len(found) >= n:
                return found
            assert time.monotonic() < deadline, [record.value for record in found]
            await asyncio.sleep(0.05)

    async def end(self) -> None:
        """Stop everything."""
        for driver, _ in self.running.values():
            driver.stop()
        await asyncio.gather(*(task for _, task in self.running.values()))
        if self.appender is not None:
            await self.appender.aclose()


class FaustWorld(KafkaWorld):
    """Stages on Faust."""

    exactly_once = False

    def driver(self, stage: Stage, **more: Any) -> Any:
        """The driver of this world."""
        return FaustDriver(self.bus, stage, **more)


World = MemoryWorld | KafkaWorld
Make = Callable[[], World]
