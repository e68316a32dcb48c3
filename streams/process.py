"""A stage as a process: settings checked, driver chosen, ended by a signal."""

import asyncio
import gc
import logging
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from odradek.infra.bus import BusSettings
from odradek.infra.runtime import telemetry
from odradek.streams.drivers.kafka import KafkaDriver
from odradek.streams.settings import StreamsSettings, check_deadlines
from odradek.streams.stage import Stage

log = logging.getLogger("odradek")


class Driver(Protocol):
    """What carries a stage."""

    ready: asyncio.Event

    async def run(self) -> None:
        """Fold until `stop()`."""
        ...

    def stop(self) -> None:
        """End after what is under way."""
        ...


def driver_of(bus: BusSettings, stage: Stage, settings: StreamsSettings) -> Driver:
    """The driver that settings ask for."""
    if settings.driver == "faust":
        from odradek.streams.drivers.faust import FaustDriver

        return FaustDriver(bus, stage)
    return KafkaDriver(bus, stage, instance=settings.instance)


async def run_stage(bus: BusSettings, stage: Stage, settings: StreamsSettings) -> None:
    """Run a stage until SIGTERM or SIGINT.

    Raises:
        DeadlinesRefused: At start, if the deadlines cannot hold.
        StreamError: See the driver.
        InfraError: Kafka cannot be reached or used.
    """
    check_deadlines(settings.deadlines, settings.max_attempts)
    await supervised(stage.name, driver_of(bus, stage, settings))


async def supervised(name: str, driver: Driver) -> None:
    """Run a driver until a signal; say when it is ready."""
    telemetry.setup(name)
    calm_collector()
    with ended_by_signals(driver.stop):
        saying = asyncio.create_task(_say(name, driver.ready.wait))
        try:
            await driver.run()
        finally:
            saying.cancel()
            telemetry.shutdown()


def calm_collector() -> None:
    """Let Python's cycle collector run rarely.

    What a fold keeps (open stories) holds no cycles, and grows and shrinks by the thousand: at the
    default thresholds a third of the time went into looking at it again and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


async def _say(name: str, ready: Callable[[], Awaitable[object]]) -> None:
    await ready()
    log.info("ready: %s", name)


@contextmanager
def ended_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """SIGTERM and SIGINT call `stop` inside this block."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
