"""Hard tasks are published once more: which, and exactly once whatever dies."""

from collections import Counter

import msgspec
from aiokafka import TopicPartition
from hypothesis import example, given, settings
from hypothesis import strategies as st

from odradek.agents.dispatch.credit import Credit
from odradek.agents.dispatch.partition import TaskPartition
from odradek.agents.dispatch.progress import TaskProgress, TaskState
from odradek.agents.dispatch.repeats import RepeatRules, repeat_of
from odradek.agents.dispatch.requests import TaskRequests
from odradek.schemas import codec, ids
from odradek.schemas.events import Batch, Pointer, Task

ALWAYS = RepeatRules(share=1.0, below=0.5, most=2)


def task_of(name="t", **given):
    return Task(**{"task_id": name, "agent": "player", "group_size": 2, "item": "i", **given})


def batch_of(name, *rewards, **given):
    pointers = tuple(
        Pointer(
            episode_id=f"{name}-{sample}", sample=sample, topic="rl.episodes.v1", partition=0,
            offset=sample, digest="", reward=reward,
        )
        for sample, reward in enumerate(rewards)
    )  # fmt: skip
    return Batch(task_id=name, group_size=2, episodes=pointers, **given)


def test_a_task_whose_group_failed_follows_under_an_id_of_its_own():
    """All else stays as it was asked for; the new id follows from the old one."""
    again = repeat_of(task_of(), batch_of("t", 0.0, 0.0), ALWAYS)
    assert task_of(ids.repeat_id("t"), repeats=1) == again
    assert repeat_of(task_of(), batch_of("t", 0.0, 0.0), ALWAYS) == again


def test_only_hard_tasks_for_training_follow_and_only_so_often():
    """Solved groups, groups without an episode, evaluations and the last repeat are left alone."""
    failed = batch_of("t", 0.0, 0.0)
    assert repeat_of(task_of(), batch_of("t", 0.0, 1.0), ALWAYS) is None
    assert repeat_of(task_of(), batch_of("t"), ALWAYS) is None
    assert repeat_of(task_of(purpose="eval"), failed, ALWAYS) is None
    assert repeat_of(task_of(repeats=2), failed, ALWAYS) is None
    assert repeat_of(task_of(), failed, RepeatRules()) is None


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8), st.floats(-1e3, 1e3))
@example([0.1, 0.1, 0.1], 0.1)
def test_hard_is_below_the_mean(rewards, below):
    """The mean of the rewards that the batch states decides, and nothing else of it."""
    again = repeat_of(task_of(), batch_of("t", *rewards), RepeatRules(share=1.0, below=below))
    assert (sum(rewards) < below * len(rewards)) == (again is not None)


@given(st.text(max_size=20), st.floats(0, 1), st.floats(0, 1))
def test_a_greater_share_repeats_what_a_smaller_one_does(name, one, two):
    """So a share that is raised in a run changes nothing for those that were repeated."""
    failed = batch_of("t", 0.0)
    less, more = (
        repeat_of(task_of(name), failed, RepeatRules(share=share)) for share in sorted((one, two))
    )
    assert less is None or less == more


def test_the_share_holds_over_many_tasks_and_their_repeats():
    """A quarter of 4,000 ids, within five standard deviations; and of these a quarter again."""
    rules, failed = RepeatRules(share=0.25), batch_of("t", 0.0)
    first = [repeat_of(task_of(f"task-{n}"), failed, rules) for n in range(4000)]
    second = [repeat_of(one, failed, rules) for one in first if one is not None]
    assert 863 < sum(one is not None for one in first) < 1137
    assert 0.16 < sum(one is not None for one in second) / len(second) < 0.34


class Log:
    """What one partition's owners have committed: records, and the tasks' progress."""

    def __init__(self):
        self.records, self.position, self.metadata = [], 0, ""

    async def commit(self, where, position, metadata, *records):
        self.records += records
        self.position, self.metadata = position, metadata


class Owner:
    """A partition's owner, as the dispatcher drives it: tasks are sent, batches and steps heard."""

    def __init__(self, log, tasks, batches):
        self.log, self.tasks, self.batches = log, tasks, batches
        self.credit = Credit(open_groups=100, open_evals=1)
        progress = TaskProgress(log.position, log.metadata)
        self.heard, end = progress.batches, log.position + progress.recorded
        self.owned = TaskPartition(0, TopicPartition("tasks", 0), log, progress)
        for offset in range(log.position, end):
            self.take(offset)

    def take(self, offset):
        standing, task = self.owned.progress.take(offset), self.tasks[offset]
        if standing is not TaskState.DONE:
            order = TaskRequests(task=task, partition=0, offset=offset)
            self.owned.orders[task.task_id] = order
        if self.owned.progress.is_out(offset):
            self.credit.sent(task.task_id, "train")

    def send(self):
        if (offset := self.owned.progress.next) < len(self.tasks):
            self.take(offset)
            self.owned.progress.put(offset, TaskState.SENT)
            self.credit.sent(self.tasks[offset].task_id, "train")

    def hear(self):
        if self.heard < len(self.batches):
            offset, batch = self.heard, self.batches[self.heard]
            self.heard += 1
            self.owned.repeat(batch, ALWAYS)
            self.done(self.credit.batch(offset, batch.task_id))

    def done(self, names):
        for name in names:
            self.owned.forget(name)


def now(coroutine):
    """Run what waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits")


moves = st.lists(st.sampled_from(["send", "hear", "step", "commit", "die"]), max_size=40)
IN_PEACE = ["send"] * 6 + ["commit"] + ["hear"] * 6 + ["commit"]


@settings(max_examples=60)
@given(moves, st.lists(st.booleans(), min_size=6, max_size=6), st.permutations(range(6)))
@example(["send", "commit", "hear", "commit", "die", "hear"], [True] * 6, [0, 1, 2, 3, 4, 5])
def test_each_hard_task_is_published_once_more_whatever_dies(moves, hard, order):
    """Owners die before and after commits, hear batches again, and pass groups in between."""
    tasks = [task_of(f"t{n}") for n in range(6)]
    log, batches, sent = Log(), [], set()
    closing = [batch_of(f"t{n}", *([0.0, 0.0] if hard[n] else [1.0, 1.0])) for n in order]
    owner = Owner(log, tasks, batches)
    for move in [*moves, *IN_PEACE]:
        if move == "die":
            owner = Owner(log, tasks, batches)
        elif move == "step":
            owner.done(owner.credit.step(owner.heard))
        elif move == "commit":
            now(owner.owned.commit(owner.credit, owner.heard))
            # Only what was committed went out, and may be played and closed.
            sent |= {name for name in owner.owned.orders if owner.credit.counts(name)}
            batches += [batch for batch in closing if batch.task_id in sent]
            closing = [batch for batch in closing if batch.task_id not in sent]
        else:
            getattr(owner, move)()
    found = Counter(codec.decode(record.value, Task).task_id for record in log.records)
    assert Counter(ids.repeat_id(f"t{n}") for n in range(6) if hard[n]) == found
    assert all(record.key == codec.decode(record.value, Task).task_id for record in log.records)


def test_a_batch_that_repeats_another_one_counts_for_nothing():
    """A replay to the live topic makes nothing hard a second time."""
    log, task = Log(), task_of("t0")
    owner = Owner(log, [task], [])
    owner.send()
    batch = batch_of("t0", 0.0)
    owner.owned.repeat(msgspec.structs.replace(batch, origin="rl.batches.v1/0/3"), ALWAYS)
    now(owner.owned.commit(owner.credit, 0))
    assert [] == log.records
