"""Stretches of the log, read in tasks of their own for streams that may end at any moment."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from odradek.infra.bus import BusSettings, Record, read_range
from odradek.infra.errors import BusError

AT_ONCE: Final = 100
"""Records that are read ahead of who wants them."""


class LogRanges:
    """Reads stretches of a topic's partitions.

    Who reads a stream may be cancelled over and over, at each wait: no connection could be closed
    in order there. So the reading is done in a task that lives here.

    Args:
        bus: Where Kafka is.
        topic: Its name without prefix.
    """

    def __init__(self, bus: BusSettings, topic: str) -> None:
        self._bus = bus
        self._topic = topic
        self._readings: set[asyncio.Task[None]] = set()

    async def read(self, partition: int, start: int, end: int) -> AsyncGenerator[Record, None]:
        """Records [start, end) of a partition. Raises BusError."""
        if start >= end:
            return
        fetched: asyncio.Queue[Record | BusError | None] = asyncio.Queue(AT_ONCE)
        reading = asyncio.create_task(self._fetch(fetched, partition, start, end))
        self._readings.add(reading)
        reading.add_done_callback(self._readings.discard)
        try:
            while (record := await fetched.get()) is not None:
                if isinstance(record, BusError):
                    raise record
                yield record
        finally:
            reading.cancel()

    async def aclose(self) -> None:
        """Return once no connection is open."""
        readings = set(self._readings)
        for reading in readings:
            reading.cancel()
        if readings:
            await asyncio.wait(readings)

    async def _fetch(
        self,
        fetched: "asyncio.Queue[Record | BusError | None]",
        partition: int,
        start: int,
        end: int,
    ) -> None:
        try:
            records = read_range(self._bus, self._topic, partition, start=start, end=end)
            async with aclosing(records):
                async for record in records:
                    await fetched.put(record)
            await fetched.put(None)
        except BusError as error:
            await fetched.put(error)
