"""What stands in the topics at the end of a run: as committed, read with a plain consumer."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from odradek.schemas import events
from odradek.schemas.topics import (
    A2A_EVENTS,
    BATCHES,
    CONVERSATIONS,
    DLQ,
    EPISODES,
    MIXED,
    POLICIES,
    REVISIONS,
    STEPS,
    TURNS,
    agent_topic,
)
from tests.chaos.verification.oracle import AGENT, ECHO

TurnsEvent = msgspec.json.Decoder(events.TurnsEvent)
EpisodesEvent = msgspec.json.Decoder(events.EpisodesEvent)
BatchEvent = msgspec.json.Decoder(events.Batch)
StepEvent = msgspec.json.Decoder(events.Step)
ConversationEvent = msgspec.json.Decoder(events.Conversation)
RewardEvent = msgspec.json.Decoder(events.Reward)
PolicyEvent = msgspec.json.Decoder(events.Policy)


@dataclass
class Log:
    """All committed records of the topics that count."""

    turns: list[tuple[Any, Any]] = field(default_factory=list)
    """(record, event)"""
    episodes: list[tuple[Any, Any]] = field(default_factory=list)
    batches: list[tuple[Any, events.Batch]] = field(default_factory=list)
    mixed: list[tuple[Any, events.Batch]] = field(default_factory=list)
    """Of the sampler, where there is one."""
    conversations: list[tuple[Any, events.Conversation]] = field(default_factory=list)
    revisions: list[tuple[Any, events.Reward]] = field(default_factory=list)
    steps: list[tuple[Any, events.Step]] = field(default_factory=list)
    policies: list[tuple[Any, events.Policy]] = field(default_factory=list)
    letters: list[Any] = field(default_factory=list)
    agent_events: list[Any] = field(default_factory=list)
    echo_events: list[Any] = field(default_factory=list)
    """Of the agent that clients of gateways ask, where there is one."""
    marks: dict[str, dict[int, int]] = field(default_factory=dict)
    """By group (`assemble`, `group`), the committed offset of each partition of its source."""


async def read(servers: str, prefix: str) -> Log:
    """Read every partition of the topics to its end of now, and what the groups have committed."""
    log = Log()
    into: dict[str, tuple[list[Any], Any]] = {
        prefix + TURNS.name: (log.turns, TurnsEvent),
        prefix + EPISODES.name: (log.episodes, EpisodesEvent),
        prefix + BATCHES.name: (log.batches, BatchEvent),
        prefix + MIXED.name: (log.mixed, BatchEvent),
        prefix + CONVERSATIONS.name: (log.conversations, ConversationEvent),
        prefix + REVISIONS.name: (log.revisions, RewardEvent),
        prefix + STEPS.name: (log.steps, StepEvent),
        prefix + POLICIES.name: (log.policies, PolicyEvent),
        prefix + DLQ.name: (log.letters, None),
        prefix + agent_topic(A2A_EVENTS, AGENT): (log.agent_events, None),
        prefix + agent_topic(A2A_EVENTS, ECHO): (log.echo_events, None),
    }
    async for record in records(servers, into):
        found, decoder = into[record.topic]
        found.append(record if decoder is None else (record, decoder.decode(record.value)))
    log.marks = await marks(servers, prefix)
    return log


async def records(servers: str, names: Iterable[str]) -> Any:
    """Committed records of topics up to their ends of now, in the order of each partition."""
    reader = AIOKafkaConsumer(
        bootstrap_servers=servers,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await reader.start()
    try:
        metadata = await reader._client.fetch_all_metadata()
        wanted = [
            TopicPartition(name, number)
            for name in names
            for number in sorted(metadata.partitions_for_topic(name) or ())
        ]
        reader.assign(wanted)
        ends = {on: end for on, end in (await reader.end_offsets(wanted)).items() if end}
        while ends:
            for messages in (await reader.getmany(timeout_ms=200)).values():
                for message in messages:
                    yield message
            for on in list(ends):
                if await reader.position(on) >= ends[on]:
                    del ends[on]
    finally:
        await reader.stop()


async def marks(servers: str, prefix: str) -> dict[str, dict[int, int]]:
    """What the folding groups have committed."""
    client = AIOKafkaAdminClient(bootstrap_servers=servers)
    await client.start()
    try:
        found = {}
        for group, topic in (("assemble", TURNS.name), ("group", EPISODES.name)):
            told = await client.list_consumer_group_offsets(f"{prefix}odradek.{group}")
            found[group] = {
                on.partition: mark.offset
                for on, mark in told.items()
                if on.topic == prefix + topic and mark.offset >= 0
            }
        return found
    finally:
        await client.close()


def header(record: Any, name: str) -> str:
    """A header of a dead letter: `reason`, `topic`, `detail`."""
    for key, value in record.headers:
        if key.endswith(name):
            return str(value.decode())
    return ""
