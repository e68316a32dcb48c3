"""A log that was written before the names of release 0.1.0 is refused, once, when a process starts.

Without this every record of it would become a dead letter, or be read without what its former
fields say.
"""

import logging
import time
from collections.abc import Iterable
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError, TopicAuthorizationFailedError

from odradek.infra.bus.clients import consumer, running, topic_partitions
from odradek.infra.bus.settings import BusSettings
from odradek.infra.errors import BusError, FormatRefused
from odradek.schemas.compatibility import Age, Dated, dated
from odradek.schemas.topics import DLQ

log = logging.getLogger("odradek")

LOOK_RECORDS: Final = 64
"""Records of a partition that are looked at, unless an earlier one has a name that has changed."""
LOOK_BYTES: Final = 4 * 1024 * 1024
LOOK_S: Final = 10.0
"""How long the broker may take to show them."""


async def require_current(bus: BusSettings, names: Iterable[str]) -> None:
    """Look at the first records of topics (without prefix); those that are missing count as empty.

    A topic that this process may not read is none that it could misread.

    Raises:
        FormatRefused: A record was written under former names.
        BusError: The offsets cannot be read.
    """
    async with running(consumer(bus, committed=False), bus) as reader:
        # Dead letters hold whatever could not be read.
        topics = (bus.topic(name) for name in names if name != DLQ.name)
        partitions = await topic_partitions(reader, *topics)
        if not partitions:
            return
        try:
            await _look(reader, bus, partitions)
        except (TopicAuthorizationFailedError, OffsetOutOfRangeError) as error:
            # The second: retention has deleted the beginning meanwhile.
            log.debug("not looked at for former names: %s", error)
        except KafkaError as error:
            raise BusError(f"the beginnings of topics cannot be read: {error!r}") from error


async def _look(
    reader: AIOKafkaConsumer, bus: BusSettings, partitions: list[TopicPartition]
) -> None:
    begins = await reader.beginning_offsets(partitions)
    ends = await reader.end_offsets(partitions)
    left = {at: LOOK_RECORDS for at in partitions if begins[at] < ends[at]}
    reader.assign([*left])
    size = dict.fromkeys(left, 0)
    for at in left:
        reader.seek(at, begins[at])
    deadline = time.monotonic() + LOOK_S
    while left and time.monotonic() < deadline:
        for at, messages in (await reader.getmany(timeout_ms=200, max_records=256)).items():
            for message in messages:
                event = _judged(message, bus)
                size[at] += len(message.value or b"")
                left[at] -= 1
                if event.age is Age.CURRENT or not left[at] or size[at] > LOOK_BYTES:
                    left[at] = 0
                    break
        for at in [*left]:
            # The position also moves over markers of transactions.
            if not left[at] or await reader.position(at) >= ends[at]:
                del left[at]
                reader.pause(at)


def _judged(message: Any, bus: BusSettings) -> Dated:
    event = dated(message.value, tuple(message.headers or ()))
    if event.age is Age.FORMER:
        raise FormatRefused(
            f"topic {message.topic} holds events of an unreleased earlier format "
            f"(partition {message.partition}, offset {message.offset}: {event.former} is now "
            f"{event.now}): stop all processes of this installation, then delete its topics, or "
            f"begin with another ODRADEK_TOPIC_PREFIX than {bus.topic_prefix!r}"
        )
    return event
