"""A reader that outlives its consumer: after an error it goes on behind the last record."""

import asyncio
from collections.abc import Callable
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from odradek.infra.bus import BusSettings, Positions, Record, at_beginning, at_end, following
from odradek.infra.errors import BusError

HEALTHY_S: Final = 1.0
"""A consumer that read for so long was well: another one may take its place at once."""
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 10.0


class SteadyReader:
    """Reads a topic, or one partition, from now on and for ever.

    A consumer that ends, because the broker refuses it or for any other reason, is replaced by one
    that begins behind the last record. While none can be had, callers hear why, at once.

    Args:
        bus: Where Kafka is.
        source: A topic without prefix, or a partition of a topic with its prefix.
        hear: Called with each record.
        begin: Called with the offsets at which a consumer begins.
        lost: Called with the error when no consumer can be had; whoever waits hears it.
    """

    def __init__(
        self,
        bus: BusSettings,
        source: str | TopicPartition,
        hear: Callable[[Record], None],
        *,
        begin: Callable[[Positions], None] = lambda _: None,
        lost: Callable[[BusError], None],
    ) -> None:
        self._bus = bus
        self._source = source
        self._hear = hear
        self._begin = begin
        self._lost = lost
        self._next: Positions = {}
        self._reading = False
        self._error: BusError | None = None
        self._moved = asyncio.Event()
        self._task = asyncio.create_task(self._read_for_ever())
        self._task.add_done_callback(self._ended)

    async def ready(self) -> None:
        """Return once whatever is appended from now on will be heard. Raises BusError."""
        while not self._reading:
            self.check()
            await self._moved.wait()

    def check(self) -> None:
        """Raise BusError if nothing can be read at the moment."""
        if self._error is not None:
            raise BusError(str(self._error)) from self._error

    async def aclose(self) -> None:
        """Stop reading; whoever waits hears it."""
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _read_for_ever(self) -> None:
        clock = asyncio.get_running_loop().time
        pause = FIRST_PAUSE_S
        while True:
            began = clock()
            try:
                await self._read()
            except BusError as error:
                why = error
            except KafkaError as error:
                why = BusError(f"the log cannot be read: {error!r}")
            well, self._reading = self._reading and clock() - began > HEALTHY_S, False
            if well:
                pause = FIRST_PAUSE_S
                continue
            self._fail(why)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _read(self) -> None:
        async with following(self._bus, self._source, start=self._start) as records:
            self._reading, self._error = True, None
            self._move()
            async for record in records:
                where = TopicPartition(self._bus.topic(record.topic), record.partition)
                self._next[where] = record.offset + 1
                self._hear(record)

    async def _start(self, reader: AIOKafkaConsumer, partitions: list[TopicPartition]) -> Positions:
        """Behind the last record that was heard, or that is left; at first behind the newest."""
        ends = await at_end(reader, [where for where in partitions if where not in self._next])
        firsts = await at_beginning(reader, [where for where in partitions if where in self._next])
        self._next = ends | {where: max(self._next[where], firsts[where]) for where in firsts}
        self._begin(self._next)
        return dict(self._next)

    def _fail(self, error: BusError) -> None:
        self._error = error
        self._move()
        self._lost(error)

    def _move(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._reading = False
        self._fail(BusError("closed" if task.cancelled() else repr(task.exception())))
