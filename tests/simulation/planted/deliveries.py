"""Faults of the push dispatcher that its checks must find."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any
from unittest.mock import patch

import msgspec

from odradek.agents.push.deliveries import Delivery, DeliveryQueue
from odradek.agents.push.sender import PostResult
from odradek.agents.push.worker import DeliveryWorker
from tests.simulation.planted.patches import Patches


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


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Within this block the dispatcher has this fault; none for an empty name."""
    with ExitStack() as stack:
        for place, attribute, thing in PLANTED[name][0]() if name else ():
            stack.enter_context(patch.object(place, attribute, thing))
        yield
