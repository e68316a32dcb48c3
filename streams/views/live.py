"""A live view on Faust, a line of JSON a second: `python -m odradek.streams.views.live rates`.

It reads from now on, in a consumer group of its own, and writes nothing: no result, and no dead
letter for what it cannot read. So it may be started beside any run, as often as anybody likes.
"""

import asyncio
import logging
import secrets
import sys
import time
from collections.abc import Callable
from typing import Any, ClassVar

import msgspec

from odradek.infra.bus import BusSettings, OutgoingRecord
from odradek.infra.runtime.imports import import_entry
from odradek.streams.drivers.faust import FaustDriver
from odradek.streams.process import serve
from odradek.streams.views import VIEWS
from odradek.streams.views.view import LiveView, stage_of


class ViewDriver(FaustDriver):
    """Feeds a view with what is appended from now on."""

    begins: ClassVar[str] = "latest"

    async def _send(self, out: list[OutgoingRecord]) -> None:
        """Nothing is written: whoever the record is for makes its dead letter."""


def view_driver(bus: BusSettings, name: str, view: LiveView) -> ViewDriver:
    """What feeds a view; `name` begins the name of its consumer group."""
    return ViewDriver(bus, stage_of(f"view-{name}-{secrets.token_hex(4)}", view))


async def show(name: str, write: Callable[[str], Any] = sys.stdout.write) -> None:
    """Print a line of JSON a second until a signal; `name` is of `VIEWS`."""
    view: LiveView = import_entry(VIEWS[name])()
    driver = view_driver(BusSettings(), name, view)
    printing = asyncio.create_task(_print(view, write))
    try:
        await serve(driver, driver.stage.name)
    finally:
        printing.cancel()


async def _print(view: LiveView, write: Callable[[str], Any]) -> None:
    while True:
        await asyncio.sleep(1)
        write(msgspec.json.encode(view.snapshot(time.time())).decode() + "\n")
        sys.stdout.flush()


def main(words: list[str]) -> None:
    """Run the view that is named; without a name, `rates`."""
    name = words[0] if words else "rates"
    if name not in VIEWS or len(words) > 1:
        sys.exit(f"no view is called {' '.join(words)!r}; there are {', '.join(VIEWS)}")
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    asyncio.run(show(name))


if __name__ == "__main__":
    main(sys.argv[1:])
