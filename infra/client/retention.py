"""What a run's topics take, and how long they last: from the rates of the log itself."""

import time
from typing import Final

from msgspec import Struct

from odradek.infra.bus import (
    BusSettings,
    Record,
    RecordLookup,
    event_of,
    looking_up,
    read_range,
)
from odradek.schemas.events import Step
from odradek.schemas.topics import DAY_MS, STEPS, TOPICS, Topic

DAY_S: Final = 86_400.0
GB: Final = 1e9
SAMPLE: Final = 200
"""Records of a partition whose size is looked at, the newest."""

NEEDED_FOR: Final = {
    "rl.episodes.v1": "replay, show, export of tokens",
    "rl.batches.v1": "replay, the sampler",
    "rl.steps.v1": "show, diff, verify",
    "rl.revisions.v1": "late rewards",
    "rl.conversations.v1": "rescore, find, export of words",
    "rl.turns.v1": "verify, an assembler that begins anew",
}
"""What each topic must still hold, by name."""


class TopicPlan(Struct, frozen=True):
    """A topic's rate, and what it comes to."""

    topic: str
    per_s: float
    """Records a second."""
    record_bytes: float
    """Of a record with its key and headers, before compression; a mean of the newest."""
    retention_days: float
    """As the table has it; 0: the newest record of a key stays for ever."""
    needed_for: str = ""

    @property
    def day_gb(self) -> float:
        """Gigabytes (1e9 bytes) that a day brings, before compression, in one replica."""
        return self.per_s * self.record_bytes * DAY_S / GB

    @property
    def full_gb(self) -> float:
        """Gigabytes once retention deletes as much as comes."""
        return self.day_gb * self.retention_days

    def held_gb(self, days: float) -> float:
        """Gigabytes that it holds of a run of so many days, at its end."""
        return self.day_gb * min(days, self.retention_days or days)

    def forgets(self, days: float) -> bool:
        """Whether a run of so many days ends after retention has deleted its beginning."""
        return bool(self.per_s and self.needed_for and 0 < self.retention_days < days)


def _size(record: Record) -> int:
    """Bytes of a record: key, value and headers, without Kafka's own."""
    headers = sum(len(name) + len(value or b"") for name, value in record.headers)
    return len(record.key or "") + len(record.value or b"") + headers


def plan_of(row: Topic, *, records: int, seconds: float, sizes: list[int]) -> TopicPlan:
    """A topic's plan.

    Args:
        row: Of the table.
        records: That came.
        seconds: In which.
        sizes: Bytes of some of them.
    """
    return TopicPlan(
        topic=row.name,
        per_s=records / seconds if seconds > 0 else 0.0,
        record_bytes=sum(sizes) / len(sizes) if sizes else 0.0,
        retention_days=row.retention_ms / DAY_MS if row.retention_ms > 0 else 0.0,
        needed_for=NEEDED_FOR.get(row.name, ""),
    )


async def steps_per_s(
    bus: BusSettings, *, run: str = "main", window_s: float = 3600.0, now: float | None = None
) -> float:
    """Optimizer steps a second of a run, in the last so many seconds; 0 where there are none.

    A step makes several entries of the ledger, and one that was made again after a crash counts
    once. Raises BusError.
    """
    now = time.time() if now is None else now
    async with looking_up(bus) as lookup:
        bounds = await lookup.bounds(STEPS.name)
        since = await lookup.at_time(STEPS.name, 0, now - window_s) if bounds else 0
    steps, oldest = set(), now
    if not bounds or since >= bounds[0][1]:
        return 0.0
    async for record in read_range(bus, STEPS.name, 0, start=max(since, bounds[0][0])):
        step: Step | None = event_of(record, Step)
        if step is not None and step.run == run:
            oldest = min(oldest, record.timestamp)
            if step.optimized:
                steps.add(step.step)
    return len(steps) / max(now - oldest, 1.0)


async def plans(
    bus: BusSettings, *, window_s: float = 3600.0, now: float | None = None
) -> list[TopicPlan]:
    """The plans of all topics of the table that hold records.

    Args:
        bus: Where Kafka is.
        window_s: The last so many seconds give the rates, or all that there is of them.
        now: Unix seconds; the clock's if not given.

    Raises BusError.
    """
    now = time.time() if now is None else now
    async with looking_up(bus) as lookup:
        found = [await _plan(lookup, row, now, window_s) for row in TOPICS]
    return [plan for plan in found if plan is not None]


async def _plan(lookup: RecordLookup, row: Topic, now: float, window_s: float) -> TopicPlan | None:
    bounds = await lookup.bounds(row.name)
    records, oldest, sizes = 0, now, []
    for partition, (begin, end) in enumerate(bounds):
        since = max(begin, await lookup.at_time(row.name, partition, now - window_s))
        if since >= end:
            continue
        records += end - since
        first, _ = await lookup.stretch(row.name, partition, since, most=1)
        oldest = min([oldest, *(record.timestamp for record in first)])
        newest, _ = await lookup.stretch(row.name, partition, max(since, end - SAMPLE))
        sizes += [_size(record) for record in newest]
    if not records:
        return None
    return plan_of(row, records=records, seconds=max(now - oldest, 1.0), sizes=sizes)
