"""Faults of the push dispatcher that its checks must find."""

from contextlib import AbstractContextManager
from itertools import count
from typing import Any

import msgspec

from odradek.agents.push.deliveries import Delivery, DeliveryQueue
from odradek.agents.push.sender import PostResult
from odradek.agents.push.worker import DeliveryWorker
from tests.simulation.planted.patches import Patches, applied


def committed_before_delivered() -> Patches:
    """An event counts as over once it is read."""
    receive = DeliveryWorker._receive

    def receive_and_finish(self: Any, owned: Any, record: Any) -> None:
        receive(self, owned, record)
        owned.tracker.finish(record.offset)

    return [(DeliveryWorker, "_receive", receive_and_finish)]


def refusals_believed_delivered() -> Patches:
    """Whatever a webhook answers, it has the event."""
    return [(PostResult, "delivered", property(lambda self: self.status > 0))]


def lanes_of_one_event() -> Patches:
    """A task's events do not wait for each other."""
    add, numbers = DeliveryQueue.add, count()

    def add_alone(self: DeliveryQueue, delivery: Delivery, now: float) -> None:
        add(self, msgspec.structs.replace(delivery, lane=f"{next(numbers)}"), now)

    return [(DeliveryQueue, "add", add_alone)]


PLANTED = {
    "committed-before-delivered": (committed_before_delivered, "delivered"),
    "refusals-believed-delivered": (refusals_believed_delivered, "delivered"),
    "lanes-of-one-event": (lanes_of_one_event, "ordered"),
}
"""Name -> what makes the patches, and the check that must find the fault."""


def planted(name: str) -> AbstractContextManager[None]:
    """A block within which the dispatcher has this fault; none for an empty name."""
    return applied(PLANTED[name][0]() if name else [])
