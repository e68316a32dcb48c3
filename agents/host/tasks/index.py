"""The requests of a partition that a host knows, from the marks of their task snapshots."""

from collections import OrderedDict
from typing import ClassVar, Final

from google.protobuf.json_format import ParseError

from odradek.agents.binding.responses import (
    SnapshotHeaders,
    read_event,
    read_mark,
    snapshot_value,
)
from odradek.agents.errors import BadRequestHeader
from odradek.agents.host.tasks.offsets import HostOffsets
from odradek.agents.host.tasks.replay import LeftTask
from odradek.infra.bus import BusSettings, read_range
from odradek.schemas.topics import A2A_EVENTS, A2A_TASKS, agent_topic

CLOCK_S: Final = 60.0
"""How far the clocks of a broker and of a host may be apart, where topics have create times."""


class TaskIndex:
    """The snapshots of one partition, by request: the newest attempt at each message.

    It holds every task that is not over, every task whose request may be read again, and of the
    others the last `keep` that ended. A message that is sent again after that is a new one, as it
    is once retention has deleted its snapshot.

    Args:
        settled: Requests before this offset are not read again.
    """

    keep: ClassVar[int] = 5000
    """About 4 MB a partition."""
    keep_bytes: ClassVar[int] = 4 * 1024 * 1024
    """Of snapshots of tasks that are over; older ones are read from the log again."""

    def __init__(self, settled: int = 0) -> None:
        self._settled = settled
        self._tasks: dict[str, SnapshotHeaders] = {}
        self._messages: dict[str, SnapshotHeaders] = {}
        self._values: dict[str, bytes] = {}
        self._ended: dict[str, None] = {}
        """Tasks that are over, in the order in which they ended."""
        self._ended_values: OrderedDict[str, bytes] = OrderedDict()
        self._ended_bytes = 0
        self._left: dict[str, LeftTask] = {}

    def __len__(self) -> int:
        """How many tasks are known."""
        return len(self._tasks)

    def put(self, mark: SnapshotHeaders, value: bytes | None = None) -> None:
        """Remember a mark, and its snapshot: of tasks that are over the last `keep_bytes` only."""
        self._tasks[mark.task_id] = mark
        latest = self._messages.get(mark.message_id)
        if latest is None or latest.attempt <= mark.attempt:
            self._messages[mark.message_id] = mark
        if mark.terminal or value is None:
            self._values.pop(mark.task_id, None)
        else:
            self._values[mark.task_id] = value
        if mark.terminal:
            self._keep_value(mark.task_id, value or b"")
            self._ended.setdefault(mark.task_id)
            self._forget()

    def _keep_value(self, task_id: str, value: bytes) -> None:
        self._ended_bytes += len(value) - len(self._ended_values.pop(task_id, b""))
        self._ended_values[task_id] = value
        while self._ended_bytes > self.keep_bytes:
            self._ended_bytes -= len(self._ended_values.popitem(last=False)[1])

    def settle(self, offset: int) -> None:
        """Requests before `offset` are committed: whoever owns the partition begins behind them."""
        self._settled = offset
        self._forget()

    def _forget(self) -> None:
        while len(self._ended) > self.keep:
            oldest = self._tasks[next(iter(self._ended))]
            if oldest.offset >= self._settled:
                return
            del self._ended[oldest.task_id], self._tasks[oldest.task_id]
            self._ended_bytes -= len(self._ended_values.pop(oldest.task_id, b""))
            if self._messages[oldest.message_id].task_id == oldest.task_id:
                del self._messages[oldest.message_id]

    def of_task(self, task_id: str) -> SnapshotHeaders | None:
        """The newest mark of a task."""
        return self._tasks.get(task_id)

    def of_message(self, message_id: str) -> SnapshotHeaders | None:
        """The newest mark of the last attempt at a message."""
        return self._messages.get(message_id)

    def value(self, task_id: str) -> bytes | None:
        """The snapshot of a task that is unfinished, or was over lately; else nothing."""
        return self._values.get(task_id) or self._ended_values.get(task_id) or None

    def leave(self, task: LeftTask) -> None:
        """Note a task that a predecessor did not end, as its events have it."""
        self._left[task.mark.task_id] = task
        self.put(task.mark, snapshot_value(task.standing()))

    def left(self, task_id: str) -> LeftTask | None:
        """A task that a predecessor did not end, for whoever decides about it."""
        return self._left.pop(task_id, None)

    def unfinished(self) -> tuple[SnapshotHeaders, ...]:
        """Tasks that a predecessor left."""
        return tuple(mark for mark in self._tasks.values() if not mark.terminal)


async def recall(
    bus: BusSettings, agent: str, partition: int, position: int, offsets: HostOffsets
) -> TaskIndex:
    """What all snapshots of a partition say; the fenced writer must be started before.

    Then no transaction of a predecessor is open, and the end that a committed reader sees is the
    end of the log. Reading of requests begins at `position`.
    """
    memory = TaskIndex(position)
    begun: dict[str, float] = {}
    async for record in read_range(bus, agent_topic(A2A_TASKS, agent), partition):
        if record.value is None:
            continue
        try:
            mark = read_mark(record.headers)
        except (BadRequestHeader, KeyError, ValueError):
            continue  # no snapshot of ours; nothing can be recovered from it
        memory.put(mark, record.value)
        begun.setdefault(mark.task_id, record.timestamp)
    left = {
        mark.task_id: LeftTask(mark, memory.value(mark.task_id) or b"{}", begun[mark.task_id])
        for mark in memory.unfinished()
    }
    if left:
        since = min(task.begun_at for task in left.values()) - CLOCK_S
        start = await offsets.events_since(partition, since)
        await _replay(bus, agent, partition, start, left)
        for task in left.values():
            memory.leave(task)
    return memory


async def _replay(
    bus: BusSettings, agent: str, partition: int, start: int, left: dict[str, LeftTask]
) -> None:
    """Bring tasks up to their last event; those of one task stand in the order of generations."""
    async for record in read_range(bus, agent_topic(A2A_EVENTS, agent), partition, start=start):
        task = left.get(record.key or "")
        if task is None or record.value is None:
            continue
        try:
            task.take(read_event(record.headers).generation, record.value)
        except (BadRequestHeader, ValueError, ParseError):
            continue  # no event of ours
