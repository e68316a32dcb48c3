"""The requests of a partition that a host knows, from the marks of their task snapshots."""

from collections import OrderedDict
from typing import ClassVar, Final

import msgspec

from odradek.agents.binding.responses import SnapshotHeaders, read_event, read_mark
from odradek.agents.errors import BadRequestHeader
from odradek.agents.host.tasks.offsets import HostOffsets
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
    unfinished = {mark.task_id: mark for mark in memory.unfinished()}
    if unfinished:
        since = min(begun[task_id] for task_id in unfinished) - CLOCK_S
        start = await offsets.events_since(partition, since)
        for task_id, generation in (await _generations(bus, agent, partition, start)).items():
            left = unfinished.get(task_id)
            if left is not None and left.generation < generation:
                newest = msgspec.structs.replace(left, generation=generation)
                memory.put(newest, memory.value(task_id))
    return memory


async def _generations(bus: BusSettings, agent: str, partition: int, start: int) -> dict[str, int]:
    """The newest generation of each task that has an event at or behind `start`.

    A snapshot is written where a task's state changes, and an event at each change: what goes on
    from a snapshot's generation would use one twice, and its readers leave out what they know.
    """
    newest: dict[str, int] = {}
    async for record in read_range(bus, agent_topic(A2A_EVENTS, agent), partition, start=start):
        try:
            event = read_event(record.headers)
        except (BadRequestHeader, ValueError):
            continue  # no event of ours
        newest[event.task_id] = max(event.generation, newest.get(event.task_id, 0))
    return newest
