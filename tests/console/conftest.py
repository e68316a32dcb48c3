"""Pages of a recorded run, without a broker."""

import asyncio
from pathlib import Path

import pytest

from odradek.infra.app.console.lookup import looked_up
from odradek.infra.app.console.run.ledger import LedgerCurves
from odradek.infra.app.history.steps import LogHistory
from tests.recorded.topics import load
from tests.support.streams.memory_lookup import MemoryLookup

RECORDING = Path(__file__).parents[1] / "recorded/0.1.0.jsonl"


class RecordedViews:
    """Views of records in memory, in place of `LogViews`."""

    def __init__(self, records, tokenizer=""):
        self.lookup = MemoryLookup(records)
        self.tokenizer = tokenizer
        self.fails = None

    async def view(self, address):
        if self.fails:
            raise self.fails
        return await looked_up(LogHistory(self.lookup, address.run, self.tokenizer), address)

    async def runs(self):
        if self.fails:
            raise self.fails
        return await LedgerCurves().update(self.lookup)

    def seen(self, address):
        """The same, outside of an event loop."""
        return asyncio.run(self.view(address))


@pytest.fixture(scope="session")
def recorded():
    """A simulated run with kills, retries, children and dead letters, as a release wrote it."""
    return load(RECORDING).worlds[2]


@pytest.fixture(scope="session")
def views(recorded):
    """What its pages show."""
    return RecordedViews(recorded)
