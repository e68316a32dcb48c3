"""Faults of the dispatcher."""

from collections.abc import Iterable
from typing import Any

from odradek.agents.dispatch import dispatcher
from odradek.agents.dispatch.credit import Credit
from odradek.agents.dispatch.dispatcher import Dispatcher
from odradek.agents.dispatch.partition import TaskPartition
from odradek.agents.dispatch.progress import TaskProgress, TaskState
from odradek.infra.bus import FencedWriter, OutgoingRecord, PartitionGroup
from odradek.infra.errors import PartitionLost
from tests.simulation.planted.patches import Patches


def sent_forgotten() -> Patches:
    """A new owner takes every task for one that waits."""
    made = TaskProgress.__init__

    def blank(self: TaskProgress, position: int, metadata: str = "") -> None:
        made(self, position, metadata)
        self._recorded = [TaskState.WAITING for _ in self._recorded]

    return [(TaskProgress, "__init__", blank)]


def waiting_forgotten() -> Patches:
    """A task that waited when its partition changed hands is queued nowhere."""

    def enlist(self: Dispatcher, owned: TaskPartition, order: Any) -> None:
        if owned.progress.standing(order.offset) is TaskState.SENT:
            self.credit.sent(order.task.task_id, order.task.purpose)
        elif owned.unread is None:
            self._waiting[order.task.purpose].append(order)
            self._changed.set()

    return [(Dispatcher, "_enlist", enlist)]


def credit_not_counted() -> Patches:
    """There is always credit for one more group."""
    return [(Credit, "free", lambda *_: 1)]


def credit_not_given_back() -> Patches:
    """A partition that goes away before it is taken over leaves its groups out.

    Too rare to be met by chance: `test_regressions` makes a world for it.
    """

    def keep(self: Dispatcher, owned: TaskPartition) -> None:
        if self._partitions.get(owned.number) is owned:
            del self._partitions[owned.number]

    return [(Dispatcher, "_take_back", keep)]


def batches_unheard() -> Patches:
    """A new owner does not read the batches that came while nobody owned the partition."""
    made = TaskProgress.__init__

    def ahead(self: TaskProgress, position: int, metadata: str = "") -> None:
        made(self, position, metadata)
        self.batches = 1 << 40

    return [(TaskProgress, "__init__", ahead)]


def requests_outside_the_transaction() -> Patches:
    """The memory of what was sent stands only after what was sent."""

    class Apart(FencedWriter):
        async def _transaction(self, records: Iterable[OutgoingRecord], offsets: Any) -> None:
            await super()._transaction(records, {})
            await super()._transaction([], offsets)

    return [(dispatcher, "FencedWriter", Apart)]


def repeats_not_remembered() -> Patches:
    """Whoever takes a partition over does not know which of its tasks were published again."""
    put = TaskProgress.put

    def forgetful(self: TaskProgress, offset: int, standing: TaskState) -> None:
        if standing is not TaskState.REPEATED:
            put(self, offset, standing)

    return [(TaskProgress, "put", forgetful)]


def evals_not_passed() -> Patches:
    """Groups of evaluations wait for the trainer, too, and are never done."""
    batch = Credit.batch

    def deaf(self: Credit, offset: int, task_id: str) -> list[str]:
        return [] if self._out.get(task_id) == "eval" else batch(self, offset, task_id)

    return [(Credit, "batch", deaf)]


def marks_run_ahead() -> Patches:
    """A task counts as done once it is sent."""
    commit = TaskPartition.commit

    async def early(
        self: TaskPartition, credit: Credit, batches: int, entries: Iterable[OutgoingRecord] = ()
    ) -> None:
        for order in self.orders.values():
            known = order.offset >= self.progress.low_water
            if known and self.progress.standing(order.offset) is TaskState.SENT:
                self.progress.put(order.offset, TaskState.DONE)
        await commit(self, credit, batches, entries)

    return [(TaskPartition, "commit", early)]


def fenced_goes_on() -> Patches:
    """What takes a partition over goes on once it was fenced, and stands in the way of another."""
    doubt = PartitionGroup.doubt

    def kept(self: PartitionGroup, number: int, error: PartitionLost) -> None:
        taking = self._taking.pop(number, None)
        doubt(self, number, error)
        if taking is not None:
            self._taking[number] = taking

    return [(PartitionGroup, "doubt", kept)]
