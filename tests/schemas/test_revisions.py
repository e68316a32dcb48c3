"""Late rewards: what they make of an episode and of a batch, and what they leave alone."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from odradek.schemas.errors import NotRevisable
from odradek.schemas.events import Batch, Outcome, Pointer, Reward
from odradek.schemas.revisions import RevisionBook, revised_batch, revised_reward
from tests.support.schemas.event_builders import episode


def late(value=1.0, component="reward", episode_id="t1-0"):
    return Reward(episode_id=episode_id, component=component, value=value, source="person/ann")


def book(*rewards):
    written = RevisionBook()
    for offset, reward in enumerate(rewards):
        written.add(offset, reward)
    return written


def ended(number=0, value=0.0, **more):
    name = f"t1-{number}"
    fields = {"reward": value, "components": {"reward": value}}
    return episode(number, name, **(fields | more))


def batch(*episodes):
    pointers = [
        Pointer(
            episode_id=each.episode_id,
            sample=number,
            topic="rl.episodes.v1",
            partition=0,
            offset=number,
            digest=f"d{number}",
            reward=each.reward or 0.0,
        )
        for number, each in enumerate(episodes)
    ]
    equal = len({pointer.reward for pointer in pointers}) == 1
    return Batch(
        task_id="t1", group_size=len(pointers), episodes=tuple(pointers), zero_variance=equal
    )


def of(*episodes):
    return {each.episode_id: each for each in episodes}


def test_the_last_late_reward_of_a_component_counts():
    """Each that changes a component is one revision more; an equal one is a repeat."""
    rewards = book(late(0.5), late(0.5), late(2.0))
    now = revised_reward(ended(), rewards.of("t1-0"))
    assert (2.0, {"reward": 2.0}, 2) == (now.reward, now.components, now.revision)


def test_weights_are_those_of_the_episodes_task():
    """A component weighs what its task says, and one that the task does not name weighs nothing."""
    weighed = ended(
        value=1.2, components={"game": 1.0, "style": 2.0}, weights={"game": 1.0, "style": 0.1}
    )
    rewards = book(late(4.0, "style"), late(9.0, "fun"))
    now = revised_reward(weighed, rewards.of("t1-0"))
    assert pytest.approx(1.4) == now.reward
    assert {"game": 1.0, "style": 4.0, "fun": 9.0} == now.components


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.TIMED_OUT, Outcome.UNREWARDED])
def test_how_a_run_ended_outweighs_its_late_reward(outcome):
    """A failed run keeps its failure reward, and one without a reward gets none."""
    reward = -1.0 if outcome.counts else None
    now = revised_reward(ended(outcome=outcome, reward=reward), book(late()).of("t1-0"))
    assert reward == now.reward


def test_a_reward_that_cannot_be_taken_apart_is_an_error():
    """Its record names no weights, and its components do not make its reward."""
    strange = ended(value=3.0, components={"game": 1.0, "reward": 1.0})
    with pytest.raises(NotRevisable, match="does not say"):
        revised_reward(strange, book(late(0.5)).of("t1-0"))


def test_a_batch_has_the_rewards_of_its_offset():
    """Up to an offset the late rewards count, and the digest says which did."""
    runs = ended(0), ended(1)
    rewards = book(late(1.0), late(7.0, episode_id="t1-1"))
    plain = batch(*runs)
    states = [revised_batch(plain, of(*runs), rewards, until) for until in (0, 1, 2)]
    assert [(0.0, 0.0), (1.0, 0.0), (1.0, 7.0)] == [
        tuple(pointer.reward for pointer in state.episodes) for state in states
    ]
    assert [True, False, False] == [state.zero_variance for state in states]
    assert [0, 1, 2] == [state.revision for state in states]
    assert 3 == len({state.digest() for state in states})
    assert states[2] == revised_batch(plain, of(*runs), rewards)


def test_what_changes_nothing_leaves_the_batch_as_it_is():
    """Late rewards of other episodes, and equal ones, make no revision of a batch."""
    runs = ended(0, 1.0), ended(1)
    plain = batch(*runs)
    rewards = book(late(1.0), late(3.0, episode_id="other"))
    assert plain == revised_batch(plain, of(*runs), rewards)


def test_a_batch_that_a_late_reward_makes_equal_teaches_nothing():
    """Its flag is made anew."""
    runs = ended(0, 1.0), ended(1)
    now = revised_batch(batch(*runs), of(*runs), book(late(0.0)))
    assert now.zero_variance


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.0, 0.5, 1.0])), max_size=12))
def test_a_state_is_the_last_value_of_each_episode(told):
    """Whatever came in which order: the brute force is a dict."""
    runs = [ended(number, 0.25 * number) for number in range(3)]
    rewards = book(*(late(value, episode_id=f"t1-{number}") for number, value in told))
    for until in range(len(told) + 1):
        last = {number: run.reward for number, run in enumerate(runs)} | dict(told[:until])
        now = revised_batch(batch(*runs), of(*runs), rewards, until)
        assert list(last.values()) == [pointer.reward for pointer in now.episodes]


def test_records_that_come_again_are_not_counted_again():
    """A reader that reads on from an older offset changes nothing."""
    rewards = book(late(1.0), late(2.0))
    rewards.add(0, late(5.0))
    assert (2, 2) == (len(rewards), rewards.end)


def test_wire():
    """A batch without revisions is written as it always was."""
    assert b"revision" not in msgspec.json.encode(batch(ended(0), ended(1, 1.0)))
