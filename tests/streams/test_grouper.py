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


def test_a_group_is_overdue_from_its_deadline_on():
    """A driver appends a Tick for it then, and none before."""
    fold, log = GROUP.fold(), Log(GROUP.source)
    assert not fold.overdue(1e9)
    fold.feed(log.add(expected(), 100.0), expected())
    assert [False, True, True] == [fold.overdue(now) for now in (159.9, 160.0, 161.0)]


def test_what_is_left_out_is_counted_by_its_reason():
    """An episode that nobody asked for, a later revision, and the same one again."""
    fold, log = GROUP.fold(), Log(GROUP.source)
    left_out = [
        episode(0, unattributed=True),
        episode(0, unattributed=True),
        episode(0, revision=1),
    ]
    for event in (expected(), *left_out, episode(0), episode(0)):
        fold.feed(log.add(event), event)
    assert {"unattributed": 2, "revision": 1, "episode": 1} == fold.dropped


def test_an_excluded_sample_may_lose_further_attempts_but_ends_only_once():
    """An attempt that another follows is a retry; a second end without a reward is late."""
    ended = episode(0, "ended", outcome=Outcome.UNREWARDED, reward=None)
    lost = episode(0, "lost", outcome=Outcome.HOST_LOST, reward=None, retry=True)
    again = episode(0, "again", outcome=Outcome.UNREWARDED, reward=None)
    (batch,), letters = batches([expected(), ended, lost, again, episode(1)])
    assert (["late_sample"], 1) == (letters, batch.retries)


def test_a_group_whose_episodes_all_failed_had_too_few():
    """`no_episodes` is kept for a task of which nothing came."""
    ends = [episode(n, outcome=Outcome.UNREWARDED, reward=None) for n in (0, 1)]
    (batch,), _ = batches([expected(), *ends])
    assert ("too_few", 2) == (batch.empty_reason, len(batch.exclusions))


def test_an_imported_episode_is_a_sample_of_no_group():
    """Also where it names an open task and a sample of it: it changes nothing."""
    foreign = episode(0, "elsewhere", imported_from="chat")
    (batch,), letters = batches([expected(), foreign, episode(1), foreign, episode(0)])
    assert (["t1-0", "t1-1"], []) == ([each.episode_id for each in batch.episodes], letters)
    assert ([], []) == batches([foreign])
    (missing,), _ = batches([expected(), foreign, episode(1), (Tick(), 61)])
    assert ["missing", "too_few"] == [each.reason for each in missing.exclusions]
