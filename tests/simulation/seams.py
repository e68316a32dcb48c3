"""Where the product is put on the simulation: aiokafka's three classes, clocks and the disk."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import odradek.agents.dispatch.requests
import odradek.infra.bus.clients
import odradek.infra.bus.transactions
import odradek.infra.runtime.metrics
import odradek.schemas.codec
import odradek.streams.drivers.partition
import odradek.trainer.commit.checkpoint
import odradek.trainer.feed.readers.episode_reader
from tests.simulation import disk
from tests.simulation.cluster import EPOCH
from tests.simulation.consumer import SimAdmin, SimConsumer
from tests.simulation.loop import LIFE, SimLoop
from tests.simulation.network import Network
from tests.simulation.producer import SimProducer


class Clock:
    """Stands in for the module `time`: the clock of whose life it is."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop

    def time(self) -> float:
        life = LIFE.get()
        return EPOCH + self._loop.time() + (life.skew if life is not None else 0.0)

    def monotonic(self) -> float:
        return self._loop.time()


class Shutil:
    """Stands in for the module `shutil`."""

    rmtree = staticmethod(disk.rmtree)


@contextmanager
def simulated(net: Network, at: Any) -> Iterator[None]:
    """Within this block the product runs on the simulation.

    Args:
        net: What clients find.
        at: Called at the crash points of code that takes no such argument.
    """
    clock = Clock(net.loop)
    clients = odradek.infra.bus.clients
    logger = logging.getLogger("odradek")
    level = logger.level
    Network.current = net
    with ExitStack() as stack:
        for place, name, thing in (
            (clients, "AIOKafkaProducer", SimProducer),
            (clients, "AIOKafkaConsumer", SimConsumer),
            (clients, "AIOKafkaAdminClient", SimAdmin),
            (odradek.infra.bus.transactions, "crash_point", at),
            (odradek.agents.dispatch.requests, "time", clock),
            (odradek.schemas.codec, "time", clock),
            (odradek.trainer.feed.readers.episode_reader, "time", clock),
            (odradek.streams.drivers.partition, "time", clock),
            (odradek.trainer.commit.checkpoint, "shutil", Shutil),
            (odradek.infra.runtime.metrics, "moved", lambda *_, **__: None),
        ):
            stack.enter_context(patch.object(place, name, thing))
        logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            logger.setLevel(level)


@contextmanager
def on_disk(one: disk.Disk) -> Iterator[None]:
    """`fsync` of checkpoints goes to this disk; planted faults come on top."""
    with patch.object(odradek.trainer.commit.durable_files, "fsync", one.fsync):
        yield
