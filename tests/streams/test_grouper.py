"""The grouper's fold: exactly one batch for each GroupOpened, and a reason for each exclusion."""

import pytest

from odradek.schemas import codec
from odradek.schemas.events import Outcome, Tick
from odradek.streams.stages.grouper import GROUP
from tests.support.schemas.event_builders import Log, episode, expected, tell, written


def batches(told, **more):
    return tell(GROUP, told, **more)


def test_a_group_closes_with_its_last_sample():
    """Pointers stand in the order of samples and name offset and digest."""
    log = Log(GROUP.source)
    log.add(expected())
    second, first = log.add(episode(1)), log.add(episode(0))
    (out,) = written(GROUP, log.records)
    batch = codec.decode(out.value, codec.union(GROUP.sinks[0]))
    assert [(0, 2), (1, 1)] == [(pointer.sample, pointer.offset) for pointer in batch.episodes]
    assert [codec.digest(first.value), codec.digest(second.value)] == [
        pointer.digest for pointer in batch.episodes
    ]
    assert ("", False, ()) == (batch.empty_reason, batch.zero_variance, batch.exclusions)


def test_an_attempt_that_another_follows_is_no_end():
    """Retries are counted apart."""
    lost = episode(0, "first", outcome=Outcome.HOST_LOST, reward=None, retry=True)
    told = [expected(), lost, episode(1)]
    assert ([], []) == batches(told)
    (batch,), _ = batches([*told, episode(0)])
    assert (2, 1) == (len(batch.episodes), batch.retries)


def test_the_first_counting_episode_of_a_sample_wins():
    """A second one is a dead letter, the same one again a repeat."""
    told = [expected(), episode(0, "a"), episode(0, "a"), episode(0, "b"), episode(1)]
    (batch,), letters = batches(told)
    assert ["a", "t1-1"] == [pointer.episode_id for pointer in batch.episodes]
    assert ["late_sample"] == letters


def test_too_few_survivors_make_an_empty_batch_with_a_reason():
    """One of two is no group; every sample has its exclusion."""
    (batch,), _ = batches([expected(), episode(0), episode(1, outcome=Outcome.UNREWARDED)])
    assert ("too_few", 0) == (batch.empty_reason, len(batch.episodes))
    assert ["too_few", "unrewarded"] == [one.reason for one in batch.exclusions]


def test_a_group_of_one_is_a_batch_of_one():
    """min(2, group_size) survivors are enough."""
    (batch,), _ = batches([expected(size=1), episode(0)])
    assert (1, "", False) == (len(batch.episodes), batch.empty_reason, batch.zero_variance)


def test_equal_rewards_are_flagged():
    """There is nothing to learn from a group without variance."""
    (batch,), _ = batches([expected(), episode(0, reward=1.0), episode(1, reward=1.0)])
    assert batch.zero_variance


def test_the_group_deadline_closes_with_what_is_there():
    """Samples that never ended are excluded as missing."""
    told = [(expected(size=3), 0), (episode(0), 1), (episode(2), 2), (Tick(), 59)]
    assert ([], []) == batches(told)
    (batch,), _ = batches([*told, (Tick(), 60)])
    assert [0, 2] == [pointer.sample for pointer in batch.episodes]
    assert [(1, "missing")] == [(one.sample, one.reason) for one in batch.exclusions]


def test_a_task_whose_samples_never_came_says_so():
    """A repeated task finds its messages already handled: its batch is empty."""
    (batch,), _ = batches([(expected(), 0), (Tick(), 60)])
    assert ("no_episodes", 2) == (batch.empty_reason, len(batch.exclusions))


def test_what_comes_after_the_close_is_late():
    """Also for a task that nobody announced."""
    told = [episode(0, task="x"), expected(size=1), episode(0), episode(0, "again")]
    assert ["late_sample", "late_sample"] == batches(told)[1]


def test_a_repeat_of_an_open_task_is_a_dead_letter():
    """The group that is open goes on."""
    (batch,), letters = batches([expected(), expected(), episode(0), episode(1)])
    assert (["duplicate_task"], 2) == (letters, len(batch.episodes))


def test_a_later_attempt_replaces_an_exclusion_while_the_group_is_open():
    """The first counting episode wins, not the first end."""
    lost = episode(0, "lost", outcome=Outcome.HOST_LOST, reward=None)
    (batch,), _ = batches([expected(), lost, episode(0, "back"), episode(1)])
    assert ["back", "t1-1"] == [pointer.episode_id for pointer in batch.episodes]


def test_unattributed_and_revised_episodes_are_never_grouped():
    """They are no samples that anybody expects."""
    told = [expected(), episode(0, unattributed=True), episode(0, revision=1)]
    assert ([], []) == batches(told)


@pytest.mark.parametrize("sample", [2, 99])
def test_a_sample_outside_the_group_is_a_dead_letter(sample):
    """Samples count from 0 to group_size - 1."""
    assert ["bad_sample"] == batches([expected(), episode(sample)])[1]
