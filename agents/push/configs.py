"""Push notification configs as records of `a2a.push.<agent>`: all of a task's in one, compacted.

The value reads as A2A's ListTaskPushNotificationConfigsResponse, with one field more: since which
generation of the task each config has been there. Events up to that generation are not for it.
"""

from typing import Any, Final

import msgspec
from a2a.types import ListTaskPushNotificationConfigsResponse, TaskPushNotificationConfig
from google.protobuf.json_format import Parse, ParseError

from odradek.agents.binding import VERSION
from odradek.agents.binding import headers as names
from odradek.agents.binding.requests import dump
from odradek.infra.bus import BusSettings, OutgoingRecord, Record, passed_over, read_range
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.topics import A2A_PUSH, agent_topic

MOST: Final = 16
"""Configs of one task."""


class TaskConfigs(msgspec.Struct, frozen=True):
    """The configs of one task."""

    configs: tuple[Any, ...] = ()
    """A2A's TaskPushNotificationConfig, in the order in which they came."""
    since: dict[str, int] = {}
    """By config: the task's generation when it came. 0: with the message that began the task."""

    def find(self, config_id: str) -> Any | None:
        """A config by its id."""
        return next((config for config in self.configs if config.id == config_id), None)

    def put(self, config: Any, generation: int) -> "TaskConfigs":
        """With one config more, or another one in the place of that with the same id.

        One that comes again as it is keeps its generation: its request was read again.
        """
        old = self.find(config.id)
        if old == config:
            return self
        if old is not None:
            placed = tuple(config if each is old else each for each in self.configs)
        else:
            placed = (*self.configs, config)
        return TaskConfigs(placed, {**self.since, config.id: generation})

    def without(self, config_id: str) -> "TaskConfigs":
        """Without a config."""
        kept = tuple(config for config in self.configs if config.id != config_id)
        since = {key: number for key, number in self.since.items() if key != config_id}
        return TaskConfigs(kept, since)

    def wanting(self, generation: int) -> tuple[Any, ...]:
        """The configs that an event of a generation is for."""
        return tuple(each for each in self.configs if generation > self.since.get(each.id, 0))


def configs_value(configs: TaskConfigs) -> bytes | None:
    """A record's value; None, which deletes the record, where no config is left."""
    if not configs.configs:
        return None
    listed = [msgspec.Raw(dump(config)) for config in configs.configs]
    return msgspec.json.encode({"configs": listed, "since": configs.since})


def read_configs(value: bytes) -> TaskConfigs:
    """The configs in a record's value. Raises InvalidRecord."""
    try:
        body = Parse(value, ListTaskPushNotificationConfigsResponse(), ignore_unknown_fields=True)
        since = msgspec.json.decode(value, type=_Since).since
    except (ParseError, ValueError, RecursionError):
        raise InvalidRecord("bad_schema", "it holds no push notification configs") from None
    return TaskConfigs(tuple(body.configs), since)


class _Since(msgspec.Struct):
    since: dict[str, int] = {}


def configs_record(
    agent: str, task_id: str, configs: TaskConfigs, *, partition: int
) -> OutgoingRecord:
    """The record of a task's configs."""
    fields = {
        names.VERSION_HEADER: VERSION,
        names.TASK_ID: task_id,
        names.CONTENT_TYPE: "application/json",
    }
    return OutgoingRecord(
        topic=agent_topic(A2A_PUSH, agent),
        key=task_id,
        value=configs_value(configs),
        headers=tuple((name, text.encode()) for name, text in fields.items()),
        partition=partition,
    )


class ConfigBook:
    """The configs of all tasks of one partition, as its records say."""

    def __init__(self) -> None:
        self._tasks: dict[str, TaskConfigs] = {}

    def __len__(self) -> int:
        """How many tasks have configs."""
        return len(self._tasks)

    def of_task(self, task_id: str) -> TaskConfigs:
        """The configs of a task."""
        return self._tasks.get(task_id, TaskConfigs())

    def put(self, task_id: str, configs: TaskConfigs) -> None:
        """Remember a task's configs."""
        if configs.configs:
            self._tasks[task_id] = configs
        else:
            self._tasks.pop(task_id, None)

    def take(self, record: Record) -> None:
        """Remember what a record says; one that is no record of ours is passed over."""
        if record.key is None:
            return
        try:
            self.put(record.key, read_configs(record.value) if record.value else TaskConfigs())
        except InvalidRecord as error:
            passed_over(record, error)


async def recall_configs(bus: BusSettings, agent: str, partition: int) -> ConfigBook:
    """What all records of a partition say now."""
    book = ConfigBook()
    async for record in read_range(bus, agent_topic(A2A_PUSH, agent), partition):
        book.take(record)
    return book


def config_of(value: bytes) -> Any:
    """A TaskPushNotificationConfig in ProtoJSON. Raises ParseError or ValueError."""
    return Parse(value, TaskPushNotificationConfig(), ignore_unknown_fields=True)
