"""The tables that a query may name: which topic and which of its events each one holds. Pure."""

from collections.abc import Callable
from typing import Any, Final, Literal

from msgspec import Struct

from odradek.infra.app.queries.columns import PLACE, RECORD, Column, columns_of
from odradek.infra.bus import Record
from odradek.schemas import codec, events, topics
from odradek.schemas.ids import key_shown
from odradek.schemas.topics import Topic
from odradek.streams.dead_letters import described

Filtered = Literal["episode", "task", "batch", "step", "key", ""]
"""By what the filters take a row of a table: "" for not at all."""


class LetterHead(Struct, frozen=True):
    """What is known of a dead letter without its content."""

    key: str | None
    reason: str | None
    detail: str | None
    consumer: str | None
    attempts: str | None
    origin_topic: str | None
    origin_partition: str | None
    origin_offset: str | None


class QueryTable(Struct, frozen=True, kw_only=True):
    """A table of the events of one type on one topic."""

    name: str
    topic: Topic
    kind: Any
    """The event type, or `LetterHead` where the topic holds original bytes."""
    filtered: Filtered
    about: str

    @property
    def columns(self) -> tuple[Column, ...]:
        """All of them: place, fields, and the whole record."""
        return (*PLACE, *self.fields, RECORD)

    @property
    def fields(self) -> tuple[Column, ...]:
        """Those of the event itself."""
        return columns_of(self.kind)


def event_reader(topic: Topic) -> Callable[[Record], Any]:
    """What reads the event in a record of a topic, of any type. It raises InvalidRecord."""
    if not topic.types:
        return _letter
    read = codec.reader(codec.union(topic), max_bytes=topic.max_bytes)
    return lambda record: read(record.value)


def _letter(record: Record) -> LetterHead:
    head = described(record)
    origin = {f"origin_{name}": head.get(name) for name in ("topic", "partition", "offset")}
    kept = {name: head.get(name) for name in ("reason", "detail", "consumer", "attempts")}
    return LetterHead(key=key_shown(record.key), **kept, **origin)


def _table(name: str, topic: Topic, kind: Any, filtered: Filtered, about: str) -> QueryTable:
    return QueryTable(name=name, topic=topic, kind=kind, filtered=filtered, about=about)


TABLES: Final = {
    table.name: table
    for table in (
        _table("tasks", topics.TASKS, events.Task, "task", "what was asked for"),
        _table("groups", topics.EPISODES, events.GroupOpened, "task", "tasks that went out"),
        _table("openings", topics.TURNS, events.EpisodeOpened, "episode", "episodes that began"),
        _table("turns", topics.TURNS, events.Turn, "episode", "model calls"),
        _table("seals", topics.TURNS, events.EpisodeSealed, "episode", "ends by the host"),
        _table("aborts", topics.TURNS, events.EpisodeAborted, "episode", "attempts given up"),
        _table(
            "rewards", topics.REWARDS, events.Reward, "episode", "verdicts, as judges sent them"
        ),
        _table("late_rewards", topics.REVISIONS, events.Reward, "episode", "of closed episodes"),
        _table("conversations", topics.CONVERSATIONS, events.Conversation, "episode", "words"),
        _table("episodes", topics.EPISODES, events.Episode, "episode", "tokens and rewards"),
        _table("batches", topics.BATCHES, events.Batch, "batch", "closed groups"),
        _table("mixed", topics.MIXED, events.Batch, "task", "batches of the sampler"),
        _table("steps", topics.STEPS, events.Step, "step", "the trainers' ledger"),
        _table("policies", topics.POLICIES, events.Policy, "", "weights in force"),
        _table("dead_letters", topics.DLQ, LetterHead, "key", "what could not be used"),
    )
}
"""By name."""


def listed() -> list[dict[str, Any]]:
    """Each table with its topic and columns, for people and for JSON."""
    return [
        {
            "table": table.name,
            "topic": table.topic.name,
            "about": table.about,
            "columns": {column.name: column.type for column in table.columns},
        }
        for table in TABLES.values()
    ]
