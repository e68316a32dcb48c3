"""Events that were posted to a webhook: each one, as it stands in the log, and in order per task."""

import hashlib
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec

from tests.chaos.verification.verdict import Verdict


def taken(journal: Path) -> list[tuple[str, str]]:
    """What a receiver wrote down: (id of the post, SHA-256 of its body), in order."""
    lines = journal.read_bytes().splitlines() if journal.exists() else []
    return [msgspec.json.decode(line, type=tuple[str, str]) for line in lines]


def name_of(record: Any) -> str:
    """The id under which an event is posted."""
    headers = {name: value.decode() for name, value in record.headers}
    return f"{headers['a2a-task-id']}.{headers['a2a-generation']}"


def deliveries(events: list[Any], journal: Path, verdict: Verdict) -> None:
    """Hold what a receiver took against the events of the log."""
    posted: dict[str, str] = {}
    orders = defaultdict(list)
    repeats = 0
    for name, digest in taken(journal):
        repeats += name in posted
        if name not in posted:
            task, _, generation = name.rpartition(".")
            orders[task].append(int(generation))
        posted[name] = digest
    for record in events:
        name = name_of(record)
        digest = posted.get(name)
        if digest is None:
            verdict.add("delivery_lost", f"event {name} was never posted")
        elif digest != hashlib.sha256(record.value).hexdigest():
            verdict.add("delivery_bytes", f"event {name} was posted with other bytes")
    for task, order in orders.items():
        if order != sorted(order):
            verdict.add("delivery_order", f"events of {task} came as {order}")
    verdict.counts["events"] = len(events)
    verdict.counts["events_posted_again"] = repeats
