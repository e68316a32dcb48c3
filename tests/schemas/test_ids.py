"""Ids derive from the work, and their partitions are Kafka's."""

from aiokafka.partitioner import murmur2 as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from odradek.schemas import ids


@given(st.binary(max_size=100))
def test_murmur2_is_kafkas(data):
    """Our hash equals the client's for every key."""
    assert reference(data) & 0xFFFFFFFF == ids.murmur2(data)


@given(st.text(min_size=1, max_size=20), st.integers(1, 3), st.integers(1, 50), st.data())
@settings(deadline=None)
def test_an_episode_id_lands_on_the_partition_of_its_request(message, attempt, partitions, data):
    """Every follow-up under the episode's key reaches the owner of the request."""
    partition = data.draw(st.integers(0, partitions - 1))
    made = ids.episode_id(message, attempt, partition=partition, partitions=partitions)
    assert partition == ids.partition_for(made, partitions)
    assert made == ids.episode_id(message, attempt, partition=partition, partitions=partitions)
    assert made != ids.episode_id(message, attempt + 1, partition=partition, partitions=partitions)


def test_ids_are_the_same_on_every_machine_and_for_ever():
    """Known values: a change here would break every log that was ever written."""
    message = ids.message_id("task-1", 0)
    assert "7a4c426d-d646-5407-b361-a437c2cfe5ae" == message
    assert "88e00d32-986c-5a4c-8627-7e0fea3d535d" == ids.episode_id(
        message, 1, partition=3, partitions=12
    )
    assert "a2252ef9-7457-577a-baa2-87432c5b5d5e" == ids.task_id("i", 0, "r")


def test_tasks_are_fresh_in_every_epoch():
    """The same item in another epoch or run is another task."""
    made = {ids.task_id("i", epoch, run) for epoch in range(3) for run in "ab"}
    assert 6 == len(made)


@given(st.text(min_size=1, max_size=40), st.integers(0, 9), st.integers(1, 12))
def test_a_child_and_its_attempts_lie_on_their_parents_partition(parent, number, partitions):
    """So one stage reads both stories, in one order."""
    home = ids.partition_for(parent, partitions)
    message = ids.child_message_id(parent, number, partitions=partitions)
    child = ids.episode_id(message, 2, partition=home, partitions=partitions)
    assert home == ids.partition_for(message, partitions) == ids.partition_for(child, partitions)
    assert message != ids.child_message_id(parent, number + 1, partitions=partitions)
