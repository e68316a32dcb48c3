"""A Faust app that shows `Rates` once a second: `python -m odradek.streams.views.live`."""

import asyncio
import logging
import sys
import time
from typing import Any

import msgspec

from odradek.infra.bus import BusSettings, Record
from odradek.schemas.events import EpisodeHead, GroupsEvent
from odradek.schemas.topics import EPISODES
from odradek.streams.process import driver_of, serve
from odradek.streams.settings import StreamsSettings
from odradek.streams.stage import NOTHING, Output, Stage
from odradek.streams.stages.grouper import Grouper
from odradek.streams.views.rates import Rates


class ViewFold(Grouper):
    """A fold that keeps nothing open and writes nothing: it only counts."""

    rates = Rates()

    def feed(self, record: Record, event: Any) -> tuple[Output, ...]:
        """See `Fold`."""
        if isinstance(event, EpisodeHead) and not event.imported_from:
            self.rates.add(record.timestamp, event)
        return NOTHING


VIEW = Stage(name="views", source=EPISODES, kind=GroupsEvent, sinks=(), fold=ViewFold, ticks=False)


async def show() -> None:
    """Print a line of JSON a second until a signal."""
    driver = driver_of(BusSettings(), VIEW, StreamsSettings(driver="faust"))
    printing = asyncio.create_task(_print())
    try:
        await serve(driver, VIEW.name)
    finally:
        printing.cancel()


async def _print() -> None:
    while True:
        await asyncio.sleep(1)
        line = msgspec.json.encode(ViewFold.rates.snapshot(time.time()))
        sys.stdout.write(line.decode() + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    asyncio.run(show())
