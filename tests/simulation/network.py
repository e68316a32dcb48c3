"""What lies between clients and the broker: ways that take time, and answers that get lost."""

import asyncio
from collections.abc import Callable
from functools import partial
from itertools import count
from random import Random
from typing import Any, NamedTuple

from aiokafka.errors import KafkaError

from tests.simulation.cluster import Again, Cluster
from tests.simulation.groups import Group
from tests.simulation.loop import Killed, Life, SimLoop, current_life

LINGER_S = 0.2
"""How long what a killed process had sent may still arrive; nobody takes its place sooner."""


class Chances(NamedTuple):
    """How likely the network is to misbehave, for each call."""

    lost_answer: float = 0.0
    """The call was carried out, its answer is lost, and the client asks again."""
    slow: float = 0.0
    """A way takes a second and not milliseconds."""
    unclear: float = 0.0
    """The end of a transaction is told to nobody: the client gives up waiting."""


class Network:
    """What lies between clients and the broker. `current` is the one of this simulation."""

    current: "Network"

    def __init__(
        self, loop: SimLoop, rng: Random, cluster: Cluster, groups: dict[str, Group]
    ) -> None:
        self.loop = loop
        self.rng = rng
        self.cluster = cluster
        self.groups = groups
        self.chances = Chances()
        self.over = False
        self.calls = 0
        self.numbers = count()

    def way(self) -> float:
        """Seconds that a message is under way."""
        if self.rng.random() < self.chances.slow:
            return self.rng.uniform(0.1, 1.5)
        return self.rng.uniform(0.0005, 0.004)

    async def call(self, life: Life, work: Callable[[], Any]) -> Any:
        """Have the broker do something: there, done, and back. `work` may be done twice."""
        if self.over:
            raise Killed
        answer = self.loop.create_future()
        if life.dead:
            return await answer  # the dead make no calls
        self.calls += 1
        self.loop.call_later(self.way(), self._deliver, life, answer, work, context=self.loop.root)
        return await answer

    def _again(self, delay: float, life: Life, answer: Any, work: Any) -> None:
        if not life.dead:
            self.loop.call_later(delay, self._deliver, life, answer, work, context=self.loop.root)

    def _deliver(self, life: Life, answer: Any, work: Callable[[], Any]) -> None:
        now = self.loop.time()
        if life.dead and (now - life.died > LINGER_S or self.rng.random() < 0.5):
            return  # it was still in the dead process' buffers, or its connection is gone
        if now < self.cluster.down_until:
            self._again(self.cluster.down_until - now + self.way(), life, answer, work)
            return
        error: Exception | None = None
        result = None
        try:
            result = work()
        except Again:
            self._again(self.rng.uniform(0.01, 0.05), life, answer, work)
            return
        except KafkaError as raised:
            error = raised
        if self.rng.random() < self.chances.lost_answer:
            self._again(self.rng.uniform(0.3, 3.0), life, answer, work)
            return
        self.loop.call_later(self.way(), _answer, answer, result, error, context=self.loop.root)


def _answer(answer: "asyncio.Future[Any]", result: Any, error: Exception | None) -> None:
    if answer.done():
        return
    if error is not None:
        answer.set_exception(error)
        answer.exception()
    else:
        answer.set_result(result)


class Client:
    """What all three share."""

    def __init__(self) -> None:
        self.net = Network.current
        self.loop = self.net.loop
        self.life = current_life()

    async def call(self, work: Callable[..., Any], *args: Any, **more: Any) -> Any:
        return await self.net.call(self.life, partial(work, *args, **more))
