"""Whether a task can be sent at all."""

from typing import Any

from odradek.agents.dispatch.requests import check
from odradek.agents.errors import RequestRefused
from odradek.infra.bus import BusSettings, Record, check_place, topic_names
from odradek.schemas import codec
from odradek.schemas.errors import UnknownTopic
from odradek.schemas.events import Task
from odradek.schemas.topics import A2A_REQUESTS, agent_topic


class TaskValidator:
    """Refuses tasks on the wrong partition, and tasks that no agent would ever read.

    Args:
        reader: The consumer of the tasks.
        bus: Where Kafka is.
        topic: Of the tasks, with prefix.
    """

    def __init__(self, reader: Any, bus: BusSettings, topic: str) -> None:
        self._reader = reader
        self._bus = bus
        self._topic = topic
        self._agents: set[str] = set()

    def check_key(self, record: Record, task: Task) -> None:
        """Require that a task's partition follows from its id: so only one dispatcher takes it.

        Raises RequestRefused or InvalidRecord.
        """
        check_place(record, len(self._reader.partitions_for_topic(self._topic) or ()))
        if record.key != task.task_id:
            raise RequestRefused("wrong_key", "the record's key is not its task_id")

    async def check(self, task: Task) -> None:
        """Raise RequestRefused unless an agent can read its requests, and has a topic of them."""
        check(task)
        try:
            name = self._bus.topic(agent_topic(A2A_REQUESTS, task.agent))
        except UnknownTopic as error:
            raise RequestRefused("unknown_agent", codec.unquoted(error)) from None
        if name not in self._agents:
            # One question for each task of an absent agent: a topic may appear at any moment.
            self._agents.update(await topic_names(self._reader))
        if name not in self._agents:
            raise RequestRefused(
                "unknown_agent", f"no topic {name}: start `odradek agent --name {task.agent}`"
            )
