"""The committed logs of a world, as events."""

from collections.abc import Iterator
from typing import Any

from odradek.schemas import codec
from odradek.schemas.errors import InvalidRecord
from tests.simulation.cluster import Message
from tests.simulation.world import World

Find = Iterator[str]


def events(world: World, topic: str, kind: Any) -> Iterator[tuple[Message, Any]]:
    """Committed records of a topic that hold an event, partition by partition."""
    for message in world.cluster.committed(topic):
        try:
            yield message, codec.decode(message.value, kind)
        except InvalidRecord:
            continue


def at_s(message: Message) -> float:
    """When the broker appended a record."""
    return message.timestamp / 1000
