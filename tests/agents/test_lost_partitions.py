"""Groups that are to go out on a partition that is taken away meanwhile."""

import asyncio

import pytest
from aiokafka import TopicPartition

from odradek.agents.dispatch.dispatcher import TOGETHER, Dispatcher
from odradek.agents.dispatch.partition import TaskPartition
from odradek.agents.dispatch.progress import TaskProgress, TaskState
from odradek.agents.dispatch.requests import TaskRequests
from odradek.agents.settings import DispatchSettings
from odradek.infra.bus import BusSettings
from odradek.infra.errors import PartitionLost
from odradek.schemas.events import Task


class Ledger:
    """Takes transactions; `meanwhile` is what happens during each."""

    def __init__(self):
        self.commits = []
        self.closed = False
        self.meanwhile = lambda: None

    async def commit(self, where, offset, metadata, *entries):
        assert not self.closed, "written to after it was let go"
        self.commits.append([entry.key for entry in entries if entry.topic == "rl.episodes.v1"])
        self.meanwhile()
        await asyncio.sleep(0)

    async def aclose(self):
        self.closed = True


@pytest.fixture(autouse=True)
def _no_broker(monkeypatch):
    monkeypatch.setattr("odradek.agents.dispatch.dispatcher.consumer", lambda *_, **__: object())


def dispatcher_with(n):
    """A dispatcher that owns partition 0 with n tasks that wait."""
    found = Dispatcher(
        DispatchSettings(open_groups=2048), BusSettings(bootstrap_servers="127.0.0.1:9")
    )
    ledger = Ledger()
    lot = TaskPartition(0, TopicPartition("rl.tasks.v1", 0), ledger, TaskProgress(0))
    found._partitions[0] = lot
    for offset in range(n):
        lot.progress.take(offset)
        task = Task(task_id=f"t{offset}", agent="player", group_size=1)
        order = TaskRequests(task=task, partition=0, offset=offset)
        lot.orders[task.task_id] = order
        found._enlist(lot, order)
    return found, lot, ledger


def names(*numbers):
    return [f"t{number}" for number in numbers]


async def test_many_groups_go_out_in_transactions_of_a_few():
    """In the order of arrival."""
    found, _, ledger = dispatcher_with(TOGETHER + 4)
    await found._send_kind("train")
    assert [names(*range(TOGETHER)), names(*range(TOGETHER, TOGETHER + 4))] == ledger.commits


@pytest.mark.parametrize("fenced", [False, True])
async def test_nothing_more_is_sent_on_a_partition_that_is_gone(fenced):
    """Taken away by the group, or by another dispatcher's fence: the rest is its successor's."""
    found, lot, ledger = dispatcher_with(2 * TOGETHER)
    ends = []
    found.fail = ends.append

    def gone():
        if fenced:
            raise PartitionLost("fenced")
        found.lose(0)

    ledger.meanwhile = gone
    await found._send_kind("train")
    assert [names(*range(TOGETHER))] == ledger.commits
    assert TaskState.WAITING is lot.progress.standing(TOGETHER)
    assert (0, []) == (found.credit.out("train"), ends)
    await found._group.aclose()


async def test_what_was_given_up_in_the_middle_is_remembered_as_it_stands():
    """At SIGTERM: what may be out counts as sent with its own transaction, the rest still waits."""
    found, lot, ledger = dispatcher_with(2 * TOGETHER)
    sending = asyncio.create_task(found._send_kind("train"))
    ledger.meanwhile = sending.cancel
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert [names(*range(TOGETHER))] == ledger.commits
    assert [TaskState.SENT, TaskState.WAITING] == [
        lot.progress.standing(offset) for offset in (TOGETHER - 1, TOGETHER)
    ]


async def test_nothing_is_sent_by_the_old_hand_of_a_partition_that_came_back():
    """What was taken over anew has its own orders, and sends them itself."""
    found, _, ledger = dispatcher_with(2 * TOGETHER)
    _, again, _ = dispatcher_with(0)

    def gone_and_back():
        found.lose(0)
        found._partitions[0] = again

    ledger.meanwhile = gone_and_back
    await found._send_kind("train")
    assert ([names(*range(TOGETHER))], []) == (ledger.commits, again.writer.commits)


async def test_a_mistake_in_a_transaction_ends_the_process(monkeypatch):
    """Whatever it is: nobody waits for ever for what the ledger will not tell."""
    monkeypatch.setattr("odradek.agents.dispatch.dispatcher.COMMIT_S", 0.0)
    found, lot, ledger = dispatcher_with(1)
    lot.forget("t0")  # the low-water mark moves, so there is something to commit

    def wrong():
        raise ValueError("a mistake of ours")

    ledger.meanwhile = wrong
    committing = asyncio.create_task(found._commit_often())
    committing.add_done_callback(found._ended)
    await asyncio.wait_for(found._stop.wait(), 60)
    assert isinstance(found._failure, ValueError)
