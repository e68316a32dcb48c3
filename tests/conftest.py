"""What all tests share: one real broker per session, one topic prefix per test.

`ODRADEK_TEST_BOOTSTRAP_SERVERS=127.0.0.1:9092` makes the tests use a broker that is running
(`odradek kafka start`) in place of one of their own: quicker when one test is run again and again.
"""

import os
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.support.suite.file_order import longest_first

if TYPE_CHECKING:
    from odradek.infra.bus import BusSettings


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files begin while there are others to run beside them."""
    items[:] = longest_first(items)


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
    # A broker that outlives the tests would gather their topics, and slow down.
    if "ODRADEK_TEST_BOOTSTRAP_SERVERS" in os.environ:
        await delete_topics(settings)
