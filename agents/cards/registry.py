"""The registry of agents: their cards on `a2a.cards`, and who serves them now."""

from typing import Any, Final

import msgspec
from a2a.types import AgentCard
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from google.protobuf.json_format import Parse, ParseError

from odradek.agents.binding.requests import dump
from odradek.infra.bus import (
    Appender,
    BusSettings,
    DoneOffsets,
    Positions,
    Record,
    admin,
    consumer,
    partitions_of,
    passed_over,
    read_below,
    running,
    standings,
    to_end,
)
from odradek.infra.errors import PositionLost
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.topics import A2A_REQUESTS, CARDS, agent_topic

STALL_S: Final = 30.0
JSON: Final = (("content-type", b"application/json"),)


class KnownCard(msgspec.Struct, frozen=True):
    """A card as it was published."""

    card: AgentCard
    published_at: float
    """Unix seconds."""


class AgentPresence(msgspec.Struct, frozen=True, kw_only=True):
    """Who serves an agent now."""

    hosts: tuple[str, ...] = ()
    """Of each host that reads its requests: its Kafka client's id and its address."""
    lag: int = 0
    """Requests that no host has finished."""


def read_card(record: Record) -> KnownCard | None:
    """The card in a record of `a2a.cards`; None for a tombstone, and for what is no card."""
    if record.value is None:
        return None
    try:
        card = Parse(record.value, AgentCard(), ignore_unknown_fields=True)
    except (ParseError, ValueError, RecursionError):
        passed_over(record, InvalidRecord("bad_schema", "it is no AgentCard"))
        return None
    return KnownCard(card, record.timestamp)


async def all_cards(bus: BusSettings) -> dict[str, KnownCard]:
    """Every agent's card as it is now, by the agents' names, sorted."""
    cards: dict[str, KnownCard] = {}
    async for record in to_end(bus, CARDS.name):
        known = read_card(record)
        if known is not None:
            cards[record.key or ""] = known
        elif record.value is None:
            cards.pop(record.key or "", None)
    return dict(sorted(cards.items()))


async def presence(bus: BusSettings, agents: list[str]) -> dict[str, AgentPresence]:
    """Who serves each agent now, and how many of its requests wait or are under way."""
    async with running(admin(bus), bus) as client, running(consumer(bus), bus) as reader:
        return {agent: await _presence(bus, client, reader, agent) for agent in agents}


async def _presence(
    bus: BusSettings, client: AIOKafkaAdminClient, reader: Any, agent: str
) -> AgentPresence:
    topic, group = bus.topic(agent_topic(A2A_REQUESTS, agent)), f"agent.{agent}"
    if topic not in await client.list_topics():
        return AgentPresence()
    wheres: list[TopicPartition] = await partitions_of(reader, topic)
    ends = await reader.end_offsets(wheres)
    beginnings = await reader.beginning_offsets(wheres)
    try:
        marks = await standings(client, reader, bus, group, wheres)
    except PositionLost:  # retention was quicker than the hosts
        marks = {where: (beginnings[where], "") for where in wheres}
    done = {where: DoneOffsets.of(*mark) for where, mark in marks.items()}
    offsets = await _offsets(bus, reader, {at: done[at].first(beginnings[at]) for at in done}, ends)
    lag = sum(done[where].undone(offsets[where], beginnings[where]) for where in wheres)
    hosts: list[str] = []
    for answer in await client.describe_consumer_groups([bus.group(group)]):
        for described in answer.to_object()["groups"]:
            hosts += [f"{m['client_id']} {m['client_host']}" for m in described["members"]]
    return AgentPresence(hosts=tuple(sorted(hosts)), lag=lag)


async def _offsets(
    bus: BusSettings, reader: Any, start: Positions, ends: Positions
) -> dict[TopicPartition, list[int]]:
    """Offsets of all records from `start` on: markers of transactions are none."""
    found: dict[TopicPartition, list[int]] = {where: [] for where in start}
    reader.assign(list(start))
    for where, offset in start.items():
        reader.seek(where, offset)
    async for record in read_below(bus, reader, start, ends, stall_s=STALL_S):
        found[TopicPartition(bus.topic(record.topic), record.partition)].append(record.offset)
    return found


async def publish_card(appender: Appender, agent: str, card: AgentCard) -> None:
    """Put an agent's card in place of the one that is there. Raises BusError."""
    await appender.append(CARDS.name, key=agent, value=dump(card), headers=JSON)


async def remove_card(appender: Appender, agent: str) -> None:
    """Take an agent's card away: a tombstone, so compaction forgets the card. Raises BusError."""
    await appender.append(CARDS.name, key=agent, value=None)
