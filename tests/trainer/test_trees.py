"""What the trainer forwards of random trees of calls: each shared beginning once."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from odradek.schemas.events import Batch, Episode, Pointer
from odradek.streams.stages.assembler import ASSEMBLE
from odradek.trainer.feed.rows import EpisodeGroup, rows_of
from tests.support.proxy.call_trees import recorded, trees
from tests.support.schemas.event_builders import opened, reward, sealed, tell

pytest.importorskip("torch")
from trl.experimental.async_grpo.packing import TreeRow

pytestmark = pytest.mark.torch


def episode_of(turns, name):
    """The episode that the assembler makes of turns."""
    told = [opened(), *turns, reward(), sealed(n=len(turns), writer="w")]
    (episode,) = [event for event in tell(ASSEMBLE, told)[0] if isinstance(event, Episode)]
    return Pointer(
        topic="t", partition=0, offset=0, digest="d", episode_id=name, sample=0, reward=1.0
    ), episode


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(trees(most=6), min_size=1, max_size=2))
def test_a_shared_beginning_is_forwarded_once_and_each_sampled_token_trained_once(found):
    """Counted by brute force: beginnings that agree up to the token after them are one."""
    played = [recorded(tree) for tree in found]
    pairs = [episode_of(turns, f"e{n}") for n, (_, turns) in enumerate(played)]
    batch = Batch(task_id="t1", group_size=2, episodes=tuple(pointer for pointer, _ in pairs))
    rows = rows_of(EpisodeGroup(0, batch, tuple(pairs)), scale=False)
    calls = [call for calls, _ in played for call in calls if call.trained]
    assert sum(len(call.sampled) for call in calls) == sum(row.sampled for row in rows)
    if not rows:
        return
    tree = TreeRow()
    for row in rows:
        tree.add(
            {"input_ids": row.ids, "completion_mask": row.mask.astype("int64"),
             "old_log_probs": row.logprobs, "advantage": row.advantage, "group_id": 0}
        )  # fmt: skip
    packed = tree.pack()
    beginnings = set()
    for row in rows:
        ids = row.ids.tolist()
        beginnings |= {(*ids[: n + 1], "then", *ids[n + 1 : n + 2]) for n in range(len(ids))}
    assert len(beginnings) == len(packed["input_ids"])
    trained = sorted(packed["old_log_probs"].tolist())
    assert sorted(-token / 8 for call in calls for token in call.sampled) == trained
