"""What all tests share: one real broker per session, one topic prefix per test.

`ODRADEK_TEST_BOOTSTRAP_SERVERS=127.0.0.1:9092` makes the tests use a broker that is running
(`odradek kafka start`) in place of one of their own: quicker when one test is run again and again.
"""

import gc
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings

from tests.support.suite.fast_lane import fast_lane, left_out
from tests.support.suite.file_order import longest_first
from tests.support.suite.part_times import LAST_RUN, PartTimes

if TYPE_CHECKING:
    from odradek.infra.bus import BusSettings


# No test is timed: on a busy machine an example may take a second, and its inputs as long.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    """What `scripts/test` asks for."""
    suite = parser.getgroup("odradek")
    suite.addoption("--fast", action="store_true", help="no broker, no torch, nothing slow")
    suite.addoption("--times", action="store_true", help="print how long each part took")
    suite.addoption("--write", action="store_true", help="keep that in docs/figures/suite.json")


def pytest_configure(config: pytest.Config) -> None:
    """Times are counted where all processes of the tests report to."""
    gc.disable()  # until all is imported: a quarter of that would be collections
    if config.getoption("--times") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(PartTimes(LAST_RUN if config.getoption("--write") else None))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What `--fast` leaves out is not even imported: torch alone takes seconds."""
    return True if config.getoption("--fast") and left_out(collection_path) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long files begin while there are others to run beside them."""
    if config.getoption("--fast"):
        items[:], rest = fast_lane(items)
        config.hook.pytest_deselected(items=rest)
    items[:] = longest_first(items)


def pytest_collection_finish() -> None:
    """What is imported by now stays: a full collection need not look at it again.

    Transformers asks for one at the start of each training; over all of torch it takes 0.6 s.
    """
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """Libraries of torch's complain of what is never freed."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def broker() -> Iterator[str]:
    """The bootstrap servers of a real Kafka, started once for all tests that ask for it."""
    if running := os.environ.get("ODRADEK_TEST_BOOTSTRAP_SERVERS"):
        yield running
        return
    from odradek.infra.app.local_kafka.broker import LocalBroker

    with LocalBroker() as local:
        yield local.bootstrap_servers


@pytest.fixture
async def bus(broker: str) -> "AsyncIterator[BusSettings]":
    """Settings of a bus of this test's own: no topic exists yet; `ensure_topics` makes them."""
    from odradek.infra.bus import BusSettings, delete_topics

    settings = BusSettings(
        bootstrap_servers=broker,
        topic_prefix=f"t{uuid4().hex[:10]}.",
        topic_partitions=3,
    )
    yield settings
    # A broker that gathers the topics of a thousand tests is slow: each new topic takes a second.
    await delete_topics(settings)
