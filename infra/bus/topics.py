"""Creating the topics of the table, and checking those that are there."""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from odradek.infra.bus.clients import admin, consumer, running, topic_partitions
from odradek.infra.bus.compatibility import require_current
from odradek.infra.bus.settings import BusSettings
from odradek.infra.errors import BusError, TopicMismatch, TopicMissing
from odradek.schemas.topics import AGENT_TOPICS, CLIENT_TOPICS, TOPICS, Topic, agent_topic

VISIBLE_WITHIN_S: Final = 30.0


def rows(agents: Iterable[str] = (), clients: Iterable[str] = ()) -> list[tuple[str, Topic]]:
    """(name, row) of all topics of an installation with these agents and client groups."""
    listed = [(row.name, row) for row in TOPICS]
    listed += [(agent_topic(row, agent), row) for agent in agents for row in AGENT_TOPICS]
    listed += [(agent_topic(row, group), row) for group in clients for row in CLIENT_TOPICS]
    return listed


async def ensure_topics(
    bus: BusSettings, required: Iterable[tuple[str, Topic]] | None = None
) -> list[str]:
    """Create missing topics of `required` (default: the whole table); return their names.

    Raises TopicMismatch where a topic has another number of partitions than it must have, and
    FormatRefused where it holds events of an unreleased earlier format.
    """
    table = {bus.topic(name): row for name, row in (rows() if required is None else required)}
    if not table:
        return []
    async with running(admin(bus), bus) as client:
        existing = set(await client.list_topics())
        new = [
            NewTopic(
                name,
                num_partitions=bus.partitions(row),
                replication_factor=bus.replication_factor,
                topic_configs=row.config,
            )
            for name, row in table.items()
            if name not in existing
        ]
        if new:
            answer = await client.create_topics(new)
            for name, code, *message in answer.topic_errors:
                if code and for_code(code) is not TopicAlreadyExistsError:
                    raise BusError(f"topic {name} cannot be created: {for_code(code)} {message}")
        await _check(client, bus, table)
    await require_current(bus, (bus.bare(name) for name in table if name in existing))
    if new:
        await _led(bus, [topic.name for topic in new])
    return sorted(topic.name for topic in new)


async def _check(client: Any, bus: BusSettings, table: dict[str, Topic]) -> None:
    """Wait until the brokers know all topics (creation returns earlier); hold the partitions."""
    async with asyncio.timeout(VISIBLE_WITHIN_S):
        while True:
            listed = await client.describe_topics(list(table))
            if all(topic["error_code"] == 0 and topic["partitions"] for topic in listed):
                break
            await asyncio.sleep(0.05)
    for topic in listed:
        name, have = topic["topic"], len(topic["partitions"])
        want = bus.partitions(table[name])
        if have != want:
            raise TopicMismatch(
                f"topic {name} has {have} partitions, but {want} are configured: ids depend on "
                "the number, so set ODRADEK_TOPIC_PARTITIONS to what the topics have, or choose "
                "another ODRADEK_TOPIC_PREFIX"
            )


async def _led(bus: BusSettings, names: list[str]) -> None:
    """Wait until the leaders of new partitions answer: brokers name them a moment before.

    A writer would try again meanwhile, and aiokafka would warn, though nothing is wrong.
    Raises BusError.
    """
    async with running(consumer(bus), bus) as reader:
        try:
            await reader.end_offsets(await topic_partitions(reader, *names))
        except KafkaError as error:
            raise BusError(f"topics were made, and a leader is silent: {error!r}") from error


async def require_topics(bus: BusSettings, names: Iterable[str]) -> None:
    """What a process asks of its topics (names of the table) at its start.

    Raises TopicMissing unless all are there, and FormatRefused if one holds events of an unreleased
    earlier format.
    """
    names = list(names)
    async with running(admin(bus), bus) as client:
        existing = set(await client.list_topics())
    absent = [name for name in names if bus.topic(name) not in existing]
    if absent:
        raise TopicMissing(
            f"Kafka lacks the topic{'s' if len(absent) > 1 else ''} {', '.join(absent)}: "
            "run `odradek topics apply`"
        )
    await require_current(bus, names)


async def delete_topics(bus: BusSettings) -> list[str]:
    """Delete every topic under this installation's prefix, which must not be empty."""
    if not bus.topic_prefix:
        raise BusError("refusing to delete topics without a topic prefix")
    async with running(admin(bus), bus) as client:
        doomed = [name for name in await client.list_topics() if name.startswith(bus.topic_prefix)]
        if doomed:
            await client.delete_topics(doomed)
    return sorted(doomed)


async def settings_of(bus: BusSettings, name: str) -> dict[str, str]:
    """The configuration that a topic (name of the table) has on the broker."""
    async with running(admin(bus), bus) as client:
        resource = ConfigResource(ConfigResourceType.TOPIC, bus.topic(name))
        try:
            (answer,) = await client.describe_configs([resource])
        except KafkaError as error:
            raise BusError(f"topic {name}: {error!r}") from error
    return {entry[0]: entry[1] for entry in answer.resources[0][4]}
