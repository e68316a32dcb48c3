"""The push dispatcher on the simulation: workers of one group post events to two webhooks.

The dispatcher, its queue, its group and its commits are the product's. Webhooks answer over the
simulated network: they refuse now and then, and their answers get lost.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from random import Random
from typing import Any
from unittest.mock import patch

from a2a.types import TaskState, TaskStatus, TaskStatusUpdateEvent

import odradek.agents.push.worker
from odradek.agents.binding.responses import EventHeaders, event_headers
from odradek.agents.push.deliveries import DeliveryLimits
from odradek.agents.push.sender import PostResult, PostTarget
from odradek.agents.push.targets import SubscriptionTargets
from odradek.agents.push.worker import DeliveryWorker
from odradek.infra.bus import KafkaAppender
from odradek.schemas.topics import A2A_DLQ, A2A_EVENTS, agent_topic
from tests.simulation.failure import Failure
from tests.simulation.faults import Faults
from tests.simulation.host import AGENT
from tests.simulation.loop import Life, current_life
from tests.simulation.network import Network
from tests.simulation.scenario import Scenario
from tests.simulation.world import Program, World

GROUP = "push"
EVENTS, DLQ = agent_topic(A2A_EVENTS, AGENT), agent_topic(A2A_DLQ, AGENT)
WEBHOOKS = (
    PostTarget(id="a", url="http://a.example/"),
    PostTarget(id="b", url="http://b.example/"),
)
PATIENT = DeliveryLimits(tries=10_000, first_s=0.1, give_up_s=100_000.0)
"""A delivery is given up by nobody."""
REFUSES = 0.1


class TwoTargets(SubscriptionTargets):
    """Both webhooks want all events."""

    def wanting(self, event: EventHeaders, partition: int) -> Iterable[PostTarget]:
        """See `PostTargets`."""
        del event, partition
        return WEBHOOKS


class Webhooks:
    """What webhooks took, in its order, whoever posted it."""

    def __init__(self, seed: int) -> None:
        self._rng = Random(f"{seed}/webhooks")
        self.taken: list[tuple[str, str, bytes]] = []
        """(webhook, id of the post, body)"""

    async def post(self, target: PostTarget, body: bytes, *, delivery_id: str) -> PostResult:
        """As `WebhookSender` does: over the network, from the life that is current."""

        def take() -> PostResult:
            if self._rng.random() < REFUSES:
                return PostResult(status=503)
            self.taken.append((target.id, delivery_id, body))
            return PostResult(status=204)

        answer: PostResult = await Network.current.call(current_life(), take)
        return answer


class DeliveryFaults(Faults):
    """Kills, freezes, rebalances, outages and orderly ends of the workers alone."""

    world: "DeliveryWorld"

    def victim(self, rng: Random) -> Program:
        """Whom the next kill or freeze meets."""
        names = [name for name, program in self.world.programs.items() if not program.steady]
        return self.world.programs[rng.choice(names)]

    def _end_one(self, rng: Random) -> None:
        lives = [life for life in self.world.workers if not life.dead and not life.frozen]
        if lives and self.apply(f"end {(life := rng.choice(lives))!r}"):
            self.world.workers[life].stop()


class DeliveryWorld(World):
    """One seed of a world in which nothing happens but events, and their posts."""

    def __init__(self, seed: int, *, only: set[int] | None = None) -> None:
        scenario = Scenario.drawn(Random(f"{seed}/weather"))
        super().__init__(
            seed,
            scenario=replace(scenario, engine_every=float("inf")),
            only=only,
            faults=DeliveryFaults,
        )
        self.webhooks = Webhooks(seed)
        self.workers: dict[Life, DeliveryWorker] = {}
        self.happened: defaultdict[str, dict[str, bytes]] = defaultdict(dict)
        """By task, the values of its events by the ids of their posts, in the order of the log."""
        self.all_happened = False

    def _programs(self) -> None:
        for number in range(self.scenario.workers):
            self._add(f"push-{number}", self._push)
        self._add("events", self._happen, steady=True)

    async def _push(self) -> None:
        life = current_life()
        worker = self.workers[life] = DeliveryWorker(
            self.bus_of(life.name),
            AGENT,
            group=GROUP,
            targets=TwoTargets(WEBHOOKS[0]),
            sender=self.webhooks,  # type: ignore[arg-type] # it has the method that is called
            limits=PATIENT,
            instance=life.name if self.scenario.static else None,
        )
        await worker.run()

    async def _happen(self) -> None:
        """Tasks whose events come among each other."""
        appender = await KafkaAppender.connect(self.bus_of("events"), timeout_s=1000.0)
        rng = Random(f"{self.seed}/events")
        left = {f"task-{number}": rng.randint(2, 6) for number in range(self.scenario.tasks)}
        generations = dict.fromkeys(left, 0)
        while left:
            task = rng.choice(sorted(left))
            left[task] -= 1
            generations[task] += 1
            status = TaskStatus(state=TaskState.TASK_STATE_WORKING)
            event = TaskStatusUpdateEvent(task_id=task, context_id="c", status=status)
            number = generations[task]
            headers = event_headers(
                event, task_id=task, generation=number, source="/hosts", traceparent=None
            )
            name = f"{task}.{number}"
            self.happened[task][name] = name.encode()
            await appender.append(EVENTS, key=task, value=name.encode(), headers=headers)
            left = {name: n for name, n in left.items() if n}
            await asyncio.sleep(rng.choice((0.0, 0.0, 1.0, 3.0)) * rng.random())
        self.all_happened = True
        await self.loop.create_future()

    def undone(self) -> str:
        """What the group has not committed; whether it was posted is for the checks to say."""
        if not self.all_happened:
            return "events are to come"
        known = self.cluster.offsets[self.bus_of("any").group(GROUP)]
        for partition in self.cluster.topics[EVENTS]:
            mark = known.get(partition.name)
            if partition.last >= 0 and (mark is None or mark.offset <= partition.last):
                return f"{GROUP} stands at {mark} of {partition.last} on {partition.name}"
        return ""

    @contextmanager
    def on_push(self) -> Iterator[None]:
        """Crash points and chance of the dispatcher are this world's."""
        module = odradek.agents.push.worker
        with ExitStack() as stack:
            stack.enter_context(patch.object(module, "crash_point", self.at))
            stack.enter_context(patch.object(module, "random", Random(f"{self.seed}/draws")))
            yield


def _delivered(world: DeliveryWorld) -> Iterator[str]:
    """Every event was posted to each webhook, as it stands in the log."""
    taken = set(world.webhooks.taken)
    for events in world.happened.values():
        for name, value in events.items():
            for webhook in WEBHOOKS:
                if (webhook.id, name, value) not in taken:
                    yield f"event {name} is committed, and was never posted to {webhook.id}"


def _ordered(world: DeliveryWorld) -> Iterator[str]:
    """Each webhook had the events of a task first in the order of the log."""
    firsts: defaultdict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for webhook, name, _ in world.webhooks.taken:
        firsts[webhook, name.partition(".")[0]].setdefault(name)
    for (webhook, task), names in firsts.items():
        order = [name for name in world.happened[task] if name in names]
        if list(names) != order:
            yield f"events of {task} came to {webhook} as {list(names)}"


def _given_up(world: DeliveryWorld) -> Iterator[str]:
    """No event became a dead letter: nobody refused it for good."""
    for message in world.cluster.committed(DLQ):
        yield f"a dead letter of {message.key!r}"


CHECKS: dict[str, Any] = {"delivered": _delivered, "ordered": _ordered, "given_up": _given_up}


def delivered(seed: int, plant: str = "", only: set[int] | None = None) -> list[Failure]:
    """Live through one seed; what did not hold."""
    from tests.simulation.planted.deliveries import planted

    world = DeliveryWorld(seed, only=only)
    with world.on_push():
        world.run(planted(plant))
    found = [Failure(name, what) for name, check in CHECKS.items() for what in check(world)]
    return [*world.failures, *found]
