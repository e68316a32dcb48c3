"""Tasks are chosen by how often their item was solved lately, as the log says."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odradek.infra.app.project.pools import RECENT, SuccessPool, success_rates
from odradek.infra.errors import ProjectError
from odradek.schemas.events import Batch, Pointer, Task


def batch(item, rewards, **more):
    """A batch of an item with these rewards."""
    pointers = tuple(
        Pointer(
            episode_id=f"e{n}", sample=n, topic="t", partition=0, offset=n, digest="d", reward=r
        )
        for n, r in enumerate(rewards)
    )
    fields = {"agent": "a", "group_size": max(len(rewards), 1)} | more
    return Batch(task_id="t", item=item, episodes=pointers, **fields)


def task(item):
    return Task(task_id=item or "none", item=item, agent="a", input={}, group_size=4)


def test_a_rate_is_that_of_the_newest_samples():
    """What an earlier policy could do says little about this one."""
    old, new = batch("x", [0.0] * RECENT), batch("x", [1.0] * (RECENT // 4))
    assert {"x": 0.25} == success_rates([old, new], 1.0)
    assert {"x": 0.0} == success_rates([new, old], 1.0)


def test_only_what_was_played_to_train_counts():
    """No evaluation, no replay, no empty batch, no other agent's, and nothing without an item."""
    others = [
        batch("x", [1.0], purpose="eval"), batch("x", [1.0], origin="rl.batches.v1/0/3"),
        batch("x", []), batch("x", [1.0], agent="b"), batch("", [1.0]),
    ]  # fmt: skip
    assert {"x": 0.5} == success_rates([*others, batch("x", [1.0, 0.5])], 1.0, agent="a")


def test_a_pool_has_its_bounds_and_what_nobody_has_played():
    """In the order of the file."""
    tasks = [task(item) for item in ("never", "hard", "new", "half", "easy", "always", "")]
    rates = {"never": 0.0, "hard": 0.1, "half": 0.5, "easy": 0.9, "always": 1.0}
    chosen = SuccessPool.parse("0.1:0.9").tasks(tasks, rates)
    assert ["hard", "new", "half", "easy", ""] == [found.item for found in chosen]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("xyz"), st.lists(st.sampled_from([0.0, 1.0]), max_size=9)))
)
def test_the_pools_of_a_log_share_all_its_tasks(played):
    """Each task is in one of three pools without a gap, whatever was played; twice the same."""
    batches = [batch(item, rewards) for item, rewards in played]
    rates = success_rates(batches, 1.0)
    assert rates == success_rates(batches, 1.0)
    known = [task(item) for item in rates]
    parts = [SuccessPool(0, 0), SuccessPool(1e-9, 1 - 1e-9), SuccessPool(1, 1)]
    assert sorted(rates) == sorted(t.item for pool in parts for t in pool.tasks(known, rates))


@pytest.mark.parametrize("text", ["", "0.1", "a:b", "0.9:0.1", "-1:1", "0:2", "nan:1", "0:1:2"])
def test_what_is_no_pool_is_named(text):
    """With an example."""
    with pytest.raises(ProjectError, match=r"0\.1:0\.9"):
        SuccessPool.parse(text)
