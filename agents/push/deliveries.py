"""What is to be posted when, and what is given up: pure, without a clock and without I/O.

A lane holds the deliveries of one task to one webhook, in the order of the log, one at a time. The
first of a lane is tried again after a pause that grows; its successors wait. A webhook that
fails again and again is left alone for a while, whatever is waiting for it, and then tried with a
single delivery. A delivery is given up after its last try, or when its webhook has been left alone
for too long.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

FACTOR: Final = 4.0
"""By how much a pause is longer than the one before."""
LONGEST_S: Final = 600.0
"""The longest pause between two tries."""
LATEST_S: Final = 3600.0
"""The longest pause that a webhook may ask for by Retry-After."""
FAILURES: Final = 5
"""Failures in a row after which a webhook is left alone for a while."""


class DeliveryLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How patient we are.

    Attributes:
        tries: How often a delivery is tried.
        first_s: Pause after its first failure.
        concurrency: Posts to one host at once.
        give_up_s: How long a delivery waits for a webhook that is left alone.
        waiting: Deliveries that wait before nothing more is taken.
    """

    tries: int = 8
    first_s: float = 1.0
    concurrency: int = 8
    give_up_s: float = 1800.0
    waiting: int = 5000

    def pause_s(self, failures: int, draw: float) -> float:
        """The pause after so many failures; a draw of [0, 1) takes up to half of it away."""
        whole = min(self.first_s * FACTOR ** min(failures - 1, 30), LONGEST_S)
        return whole * (1 - draw / 2)


class Delivery(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """One event for one webhook."""

    lane: str
    """What is delivered in order: a task's events for one webhook."""
    webhook: str
    """Its URL: what is left alone when it fails."""
    host: str
    """What `concurrency` counts."""
    work: Any
    """What is to be posted; nothing here looks at it."""


class _Lane:
    def __init__(self, name: str) -> None:
        self.name = name
        self.queue: deque[tuple[Delivery, float]] = deque()
        """With the time at which each one came."""
        self.tries = 0
        """Of the first."""
        self.busy = False
        self.gone = False


class _Circuit:
    """Whether a webhook is called: closed, open until a time, or tried with one delivery."""

    def __init__(self) -> None:
        self.failures = 0
        self.not_before = 0.0
        self.trial = False
        self.parked: list[_Lane] = []
        """Lanes that wait for the end of the trial."""

    @property
    def open(self) -> bool:
        """Whether it failed too often in a row."""
        return self.failures >= FAILURES


class DeliveryQueue:
    """Deliveries that are waiting or under way.

    Args:
        limits: How patient we are.
        draw: Gives numbers of [0, 1).
    """

    def __init__(self, limits: DeliveryLimits, draw: Callable[[], float]) -> None:
        self._limits = limits
        self._draw = draw
        self._lanes: dict[str, _Lane] = {}
        self._circuits: dict[str, _Circuit] = {}
        self._busy: dict[str, int] = {}
        self._ready: dict[str, deque[_Lane]] = {}
        """Per host, lanes whose first delivery is due."""
        self._timers: list[tuple[float, int, _Lane]] = []
        self._count = itertools.count()
        self._waiting = 0

    @property
    def full(self) -> bool:
        """Whether nothing more should be added for now."""
        return self._waiting >= self._limits.waiting

    @property
    def waiting(self) -> int:
        """How many deliveries are not over."""
        return self._waiting

    def add(self, delivery: Delivery, now: float) -> None:
        """Put a delivery behind the others of its lane."""
        lane = self._lanes.get(delivery.lane)
        if lane is None:
            lane = self._lanes[delivery.lane] = _Lane(delivery.lane)
        lane.queue.append((delivery, now))
        self._waiting += 1
        if len(lane.queue) == 1:
            self._make_ready(lane)

    def start(self, now: float) -> Iterator[Delivery]:
        """The deliveries to post now; each is under way until `delivered` or `failed`."""
        while self._timers and self._timers[0][0] <= now:
            self._make_ready(heapq.heappop(self._timers)[2])
        for host in list(self._ready):
            yield from self._start_host(host, now)

    def _start_host(self, host: str, now: float) -> Iterator[Delivery]:
        ready = self._ready[host]
        while ready and self._busy.get(host, 0) < self._limits.concurrency:
            lane = ready.popleft()
            if lane.gone or lane.busy:
                continue
            delivery = lane.queue[0][0]
            circuit = self._circuits.get(delivery.webhook)
            if circuit is not None and now < circuit.not_before:
                self._at(circuit.not_before, lane)
            elif circuit is not None and circuit.trial:
                circuit.parked.append(lane)
            else:
                if circuit is not None and circuit.open:
                    circuit.trial = True
                lane.busy = True
                self._busy[host] = self._busy.get(host, 0) + 1
                yield delivery
        if not ready:
            del self._ready[host]

    def wake_at(self) -> float | None:
        """When `start` may give more although nothing happened; None for never."""
        return self._timers[0][0] if self._timers else None

    def delivered(self, delivery: Delivery) -> None:
        """A webhook took a delivery."""
        lane = self._ended(delivery)
        circuit = self._circuits.pop(delivery.webhook, None)
        if circuit is not None:
            self._release(circuit)
        self._over(lane)

    def failed(
        self, delivery: Delivery, now: float, *, retry_after: float = 0.0, final: bool = False
    ) -> bool:
        """A webhook did not take a delivery; return whether it is given up.

        Args:
            delivery: Which.
            now: The time.
            retry_after: Seconds for which the webhook wants to be left alone.
            final: Whether to try again is of no use. Says nothing about the webhook.
        """
        lane = self._ended(delivery)
        lane.tries += 1
        if final:
            self._end_trial(delivery.webhook)
            self._over(lane)
            return True
        circuit = self._circuits.setdefault(delivery.webhook, _Circuit())
        self._note(circuit, now, retry_after)
        self._release(circuit)
        if lane.tries >= self._limits.tries:
            self._over(lane)
            return True
        pause = self._limits.pause_s(lane.tries, self._draw())
        self._at(max(now + pause, circuit.not_before), lane)
        return False

    def _note(self, circuit: _Circuit, now: float, retry_after: float) -> None:
        circuit.failures += 1
        circuit.trial = False
        pauses = [min(retry_after, LATEST_S)]
        if circuit.open:
            pauses.append(self._limits.pause_s(circuit.failures - FAILURES + 1, self._draw()))
        circuit.not_before = max(circuit.not_before, now + max(pauses))

    def hopeless(self, now: float) -> list[Delivery]:
        """Take out what has waited too long for a webhook that is left alone.

        Where the queue is full, it is all that waits for such webhooks: others must go on.
        """
        for webhook, circuit in list(self._circuits.items()):
            if now > circuit.not_before + self._limits.give_up_s and not circuit.trial:
                del self._circuits[webhook]  # nothing has come for it since
                self._release(circuit)
        if not any(circuit.open for circuit in self._circuits.values()):
            return []
        oldest = now if self.full else now - self._limits.give_up_s
        found = []
        for lane in list(self._lanes.values()):
            while lane.queue and not lane.busy and self._is_hopeless(*lane.queue[0], oldest):
                found.append(lane.queue[0][0])
                self._over(lane, again=False)
        return found

    def _is_hopeless(self, delivery: Delivery, came: float, oldest: float) -> bool:
        circuit = self._circuits.get(delivery.webhook)
        return circuit is not None and circuit.open and came <= oldest

    def withdraw(self, delivery: Delivery) -> None:
        """A delivery that is under way is not wanted any more: it was not posted."""
        lane = self._ended(delivery)
        self._end_trial(delivery.webhook)
        self._over(lane)

    def drop(self, unwanted: Callable[[Delivery], bool]) -> None:
        """Forget all lanes whose deliveries another process has from now on."""
        for lane in list(self._lanes.values()):
            if unwanted(lane.queue[0][0]):
                self._waiting -= len(lane.queue)
                if lane.busy:
                    first = lane.queue[0]
                    lane.queue.clear()
                    lane.queue.append(first)  # `delivered` or `failed` still comes
                    self._waiting += 1
                else:
                    self._forget(lane)

    def _ended(self, delivery: Delivery) -> _Lane:
        lane = self._lanes[delivery.lane]
        lane.busy = False
        self._busy[delivery.host] -= 1
        if not self._busy[delivery.host]:
            del self._busy[delivery.host]
        return lane

    def _over(self, lane: _Lane, *, again: bool = True) -> None:
        """The first of a lane is over: the next one's turn."""
        lane.queue.popleft()
        lane.tries = 0
        self._waiting -= 1
        if not lane.queue:
            self._forget(lane)
        elif again:
            self._make_ready(lane)

    def _forget(self, lane: _Lane) -> None:
        lane.gone = True
        if self._lanes.get(lane.name) is lane:
            del self._lanes[lane.name]

    def _end_trial(self, webhook: str) -> None:
        """A trial has shown nothing of its webhook: the next delivery is one, too."""
        circuit = self._circuits.get(webhook)
        if circuit is not None:
            circuit.trial = False
            self._release(circuit)

    def _release(self, circuit: _Circuit) -> None:
        parked, circuit.parked = circuit.parked, []
        for lane in parked:
            self._make_ready(lane)

    def _make_ready(self, lane: _Lane) -> None:
        if not lane.gone:
            self._ready.setdefault(lane.queue[0][0].host, deque()).append(lane)

    def _at(self, moment: float, lane: _Lane) -> None:
        heapq.heappush(self._timers, (moment, next(self._count), lane))
