"""Members of a consumer group: who they are to it, and when it last heard of them."""

import time
from typing import Any

from odradek.infra.bus import BusSettings, consumer, partitions_of, running


def member(reader: Any) -> tuple[str, int]:
    """The name and generation under which the group knows a consumer."""
    coordinator = reader._coordinator
    return coordinator.member_id, coordinator.generation


def beats(reader: Any) -> list[float]:
    """When the group hears of a consumer (monotonic seconds), from now on."""
    found: list[float] = []
    coordinator = reader._coordinator
    heartbeat = coordinator._do_heartbeat

    async def counted() -> Any:
        heard = await heartbeat()
        found.append(time.monotonic())
        return heard

    coordinator._do_heartbeat = counted
    return found


async def begin(bus: BusSettings, group: str, topic: str) -> None:
    """Commit the beginning of a topic for a group.

    A poll that raises counts in aiokafka as one that never ends, so that a member which met a
    partition without any committed offset would never be put out.
    """
    async with running(consumer(bus, group=group), bus) as reader:
        partitions = await partitions_of(reader, bus.topic(topic))
        reader.assign(partitions)
        await reader.commit(dict.fromkeys(partitions, 0))
