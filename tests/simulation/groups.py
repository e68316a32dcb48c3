"""The group coordinator: members, session timeouts, rebalances in the eager protocol."""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import UnknownMemberIdError

from tests.simulation.loop import Life, SimLoop

SESSION_S = 6.0
HEARTBEAT_S = 1.0


class Member:
    """A consumer in a group."""

    def __init__(
        self, life: Life, topics: list[str], rejoin: Callable[[], None], instance: str | None
    ) -> None:
        self.life = life
        self.topics = topics
        self.instance = instance
        """Static membership: who joins under this name again is the same member."""
        self.rejoin = rejoin
        """Called when a heartbeat would have told that the group is being rebalanced."""
        self.joining: asyncio.Future[list[TopicPartition]] | None = None
        self.assigned: list[TopicPartition] = []
        self.away_since: float | None = None


class Group:
    """One consumer group."""

    def __init__(self, loop: SimLoop, rng: Random, sizes: Callable[[str], int]) -> None:
        self._loop = loop
        self._rng = rng
        self._sizes = sizes
        self.generation = 0
        self.members: list[Member] = []

    def join(self, member: Member) -> "asyncio.Future[list[TopicPartition]]":
        """Ask for an assignment; it comes once every member has asked."""
        if member.instance is not None and member not in self.members:
            before = next((one for one in self.members if one.instance == member.instance), None)
            if before is not None and self._succeed(before, member):
                done = self._loop.create_future()
                done.set_result(member.assigned)
                return done
        joining = member.joining
        if joining is None or joining.cancelled():
            joining = member.joining = self._loop.create_future()
            if member not in self.members:
                self.members.append(member)
            if member.life.dead or member.life.frozen:  # its request was under way
                self.vanish(member.life)
            for other in self.members:
                if other.joining is None:
                    self._tell(other)
            self._settle()
        return joining

    def _succeed(self, before: Member, member: Member) -> bool:
        """Take a static member's place; returns whether its assignment stays as it is."""
        self.members[self.members.index(before)] = member
        member.assigned = before.assigned
        if member.life.dead or member.life.frozen:
            self.vanish(member.life)
        return all(one.joining is None for one in (before, *self.members))

    def rebalance(self) -> None:
        """Have everybody join again, as after a change of metadata."""
        for member in self.members:
            if member.joining is None:
                self._tell(member)

    def leave(self, member: Member) -> None:
        """A consumer was closed, or its session has timed out."""
        if member not in self.members:
            return
        self.members.remove(member)
        for other in self.members:
            if other.joining is None:
                self._tell(other)
        self._settle()

    def vanish(self, life: Life) -> None:
        """A process was killed or frozen: its heartbeats stop."""
        for member in self.members:
            if member.life is life:
                since = member.away_since = self._loop.time()
                self._loop.call_later(
                    SESSION_S, self._expel, member, since, context=self._loop.root
                )

    def appear(self, life: Life) -> None:
        """A frozen process goes on: its heartbeats, too."""
        for member in self.members:
            if member.life is life:
                member.away_since = None

    def _expel(self, member: Member, since: float) -> None:
        if member.away_since == since and member in self.members:
            self.leave(member)
            joining, member.joining = member.joining, None
            if joining is not None and not joining.done():
                joining.set_exception(UnknownMemberIdError())
            self._tell(member)

    def check(self, member: Member) -> None:
        """Raise UnknownMemberIdError for a commit of somebody who is no member any more."""
        if member not in self.members or member.joining is not None:
            raise UnknownMemberIdError

    def _tell(self, member: Member) -> None:
        delay = self._rng.uniform(0, HEARTBEAT_S)
        self._loop.call_later(delay, member.rejoin, context=self._loop.root)

    def _settle(self) -> None:
        if not self.members or any(one.joining is None for one in self.members):
            return
        self.generation += 1
        shares: dict[int, list[TopicPartition]] = {id(one): [] for one in self.members}
        order = list(self.members)
        if self._rng.random() < 0.5:
            self._rng.shuffle(order)
        wanted = sorted({topic for one in order for topic in one.topics})
        places = [TopicPartition(topic, n) for topic in wanted for n in range(self._sizes(topic))]
        for at, place in enumerate(places):
            shares[id(order[at % len(order)])].append(place)
        for member in order:
            future, member.joining = member.joining, None
            member.assigned = shares[id(member)]
            if future is not None and not future.done():
                future.set_result(member.assigned)


def groups_of(loop: SimLoop, rng: Random, sizes: Callable[[str], int]) -> dict[str, Any]:
    """Groups by name, made when they are first asked for."""

    class Groups(dict[str, Group]):
        def __missing__(self, name: str) -> Group:
            self[name] = Group(loop, rng, sizes)
            return self[name]

    return Groups()
