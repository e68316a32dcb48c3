"""A task partition that this dispatcher owns."""

from collections.abc import Iterable

from aiokafka import TopicPartition

from odradek.agents.dispatch.credit import Credit
from odradek.agents.dispatch.progress import TaskProgress, TaskState
from odradek.agents.dispatch.repeats import RepeatRules, repeat_of
from odradek.agents.dispatch.requests import TaskRequests, task_record
from odradek.infra.bus import FencedWriter, OutgoingRecord
from odradek.schemas.events import Batch


class TaskPartition:
    """One owned partition.

    Attributes:
        number: Which partition.
        writer: Writes as its owner.
        progress: Which of its tasks went out.
        orders: Tasks of it that are not done, by task id.
    """

    def __init__(
        self, number: int, where: TopicPartition, writer: FencedWriter, progress: TaskProgress
    ) -> None:
        self.number = number
        self.writer = writer
        self.progress = progress
        self.orders: dict[str, TaskRequests] = {}
        self._repeats: list[OutgoingRecord] = []
        """Hard tasks again, to be written with the next commit."""
        self.paused = False
        self.unread: int | None = None
        """From here on batches that its predecessor did not hear of are still to be read."""
        self._where = where
        self._committed = (-1, "")

    def forget(self, task_id: str) -> None:
        """Nothing more is to be remembered of a task."""
        order = self.orders.pop(task_id, None)
        if order is not None:
            self.progress.put(order.offset, TaskState.DONE)

    def repeat(self, batch: Batch, rules: RepeatRules) -> None:
        """Publish the task of a batch once more, if it is ours and hard, with the next commit.

        That it was is remembered by the same commit. If we die above it, the next owner hears the
        batch again and publishes the same task; below it, it knows that this was done.
        """
        order = self.orders.get(batch.task_id)
        if order is None or batch.origin:
            return
        if self.progress.standing(order.offset) is not TaskState.SENT:
            return
        if (again := repeat_of(order.task, batch, rules)) is not None:
            self.progress.put(order.offset, TaskState.REPEATED)
            self._repeats.append(task_record(again, order.traceparent))

    async def commit(
        self, credit: Credit, batches: int, entries: Iterable[OutgoingRecord] = ()
    ) -> None:
        """Write entries and the tasks' progress, in one transaction.

        Args:
            credit: Knows where the batches of open groups stand.
            batches: Where reading of batches goes on.
            entries: Records to be written with it.
        """
        self.progress.settle()
        needed = [credit.batch_of(task_id) for task_id in self.orders]
        unread_offsets = [offset for offset in (*needed, self.unread) if offset is not None]
        mark = (self.progress.low_water, self.progress.metadata(min((*unread_offsets, batches))))
        records = (*entries, *self._repeats)
        self._repeats.clear()
        if (
            records
            or mark[0] != self._committed[0]
            or _standings(mark[1]) != _standings(self._committed[1])
        ):
            # If we die above this line, nothing was sent and the next owner sends it. Below it, the
            # requests, GroupOpened and the memory that they were sent stand together.
            await self.writer.commit(self._where, *mark, *records)
            self._committed = mark


def _standings(metadata: str) -> str:
    return metadata.split(";", maxsplit=2)[-1]
