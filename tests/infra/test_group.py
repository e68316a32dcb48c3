"""Partitions that come and go while they are being taken over."""

import asyncio

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError

from odradek.infra.bus import group
from odradek.infra.bus.group import PartitionGroup
from odradek.infra.errors import PartitionLost


class Reader:
    """Notes what a consumer is told."""

    def __init__(self):
        self.resumed = []

    def subscribe(self, topics, listener):
        pass

    def seek(self, where, position):
        pass

    def pause(self, where):
        pass

    def resume(self, where):
        self.resumed.append(where.partition)


class Owner:
    """Owns what it is given, unless it is fenced on the way."""

    def __init__(self):
        self.owned = {}
        self.fenced = None

    async def take(self, number):
        self.owned[number] = 7
        if self.fenced is not None:
            del self.owned[number]
            self.fenced(number)
        return 7

    def lose(self, number):
        del self.owned[number]

    def keep(self, number):
        return self.owned.get(number)

    async def commit(self):
        pass


@pytest.fixture
def member():
    """A member of a group, and what ended it."""
    ends = []
    reader, owner = Reader(), Owner()
    group = PartitionGroup("tasks", owner, ends.append)
    group.subscribe(reader)
    return group, reader, owner, ends


def places(*numbers):
    return [TopicPartition("tasks", number) for number in numbers]


async def test_a_partition_that_was_fenced_while_it_was_taken_over_is_not_owned(member):
    """And losing it afterwards is no mistake; the next assignment takes it over anew."""
    found, reader, owner, ends = member
    owner.fenced = lambda number: found.doubt(number, PartitionLost("fenced"))
    await found.on_partitions_assigned(places(0))
    await found.settled.wait()
    assert [] == reader.resumed
    owner.fenced = None
    await found.on_partitions_assigned(places(1))
    await found.on_partitions_assigned(places(0, 1))
    await found.settled.wait()
    assert ({0: 7, 1: 7}, []) == (owner.owned, ends)
    await found.aclose()


@pytest.fixture
def fenced_half_way(member):
    """A member that was fenced off its partition, which its owner is still taking over."""
    found, _, owner, _ = member
    took, go_on = [], asyncio.Event()

    async def take(number):
        owner.owned[number] = 7
        took.append(number)
        if len(took) == 1:
            await go_on.wait()
        return 7

    owner.take = take

    async def fence():
        await found.on_partitions_assigned(places(0))
        await asyncio.sleep(0)
        assert [0] == took
        owner.lose(0)
        found.doubt(0, PartitionLost("fenced"))
        return took, go_on

    return fence


async def test_a_partition_that_comes_back_before_its_taking_over_is_through_is_taken_anew(
    member, fenced_half_way
):
    """What the fenced one had begun counts for nothing; nobody else would take it over."""
    found, reader, owner, ends = member
    took, go_on = await fenced_half_way()
    await found.on_partitions_assigned(places(0))
    go_on.set()
    await found.settled.wait()
    assert ([0, 0], {0: 7}, [0], []) == (took, owner.owned, reader.resumed, ends)
    await found.aclose()


async def test_a_member_that_was_fenced_half_way_and_is_given_nothing_ends(
    member, fenced_half_way, monkeypatch
):
    """However long its taking over still goes on: the partition would stand still."""
    monkeypatch.setattr(group, "DOUBT_S", 0)
    found, _, _, ends = member
    await fenced_half_way()
    async with asyncio.timeout(60):
        while not ends:
            await asyncio.sleep(0.001)
    assert [PartitionLost] == [type(error) for error in ends]
    await found.aclose()


async def test_what_goes_wrong_in_an_assignment_ends_the_process(member):
    """Aiokafka would swallow it, and nobody would ever read those partitions."""
    found, _, owner, ends = member
    await found.on_partitions_assigned(places(0))
    await found.settled.wait()
    owner.owned.clear()
    await found.on_partitions_assigned(places(1))
    assert [KeyError] == [type(error) for error in ends]
    await asyncio.sleep(0)
    await found.aclose()


async def test_a_partition_that_another_had_meanwhile_is_taken_anew(member):
    """It was kept through a rebalance, and its first write since is fenced."""
    found, reader, owner, ends = member
    await found.on_partitions_assigned(places(0))
    await found.settled.wait()
    owner.lose(0)
    found.take_again(0)
    assert not found.settled.is_set()
    await found.settled.wait()
    assert ([0, 0], {0: 7}, []) == (reader.resumed, owner.owned, ends)
    await found.aclose()


async def test_what_is_to_be_taken_anew_in_a_rebalance_waits_for_its_end(member, monkeypatch):
    """A consumer that has no assignment seeks nowhere; the next one says whose it is."""
    found, reader, owner, ends = member
    await found.on_partitions_assigned(places(0))
    await found.settled.wait()
    owner.lose(0)

    def refuse(*_):
        raise IllegalStateError("no current assignment")

    with monkeypatch.context() as patched:
        patched.setattr(reader, "seek", refuse)
        found.take_again(0)
    assert {} == owner.owned
    await found.on_partitions_assigned(places(0))
    await found.settled.wait()
    assert ({0: 7}, []) == (owner.owned, ends)
    await found.aclose()
