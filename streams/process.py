"""A stage as a process: settings checked, driver chosen, ended by a signal."""

from odradek.infra.bus import BusSettings
from odradek.infra.runtime import process
from odradek.infra.runtime.process import Service
from odradek.streams.drivers.kafka import KafkaDriver
from odradek.streams.settings import StreamsSettings, check_deadlines
from odradek.streams.stage import Stage


def _driver_of(bus: BusSettings, stage: Stage, settings: StreamsSettings) -> Service:
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
    await serve(_driver_of(bus, stage, settings), stage.name)


async def serve(service: Service, name: str) -> None:
    """Run a stage's driver, or what is like one, until a signal; say when it is ready.

    What a fold keeps (open episodes) holds no cycles, and grows and shrinks by the thousand: at
    Python's thresholds a third of the time went into looking at it again and again.
    """
    with process.observed(name):
        process.settle_collector(100_000, 50, 100)
        await process.serve(service, name)
