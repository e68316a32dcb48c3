"""Records in memory, looked up as on a broker: for pages and searches without one."""

from collections import defaultdict

from odradek.infra.bus import Record, RecordAddress
from odradek.infra.bus.lookup import RecordLookup
from odradek.schemas.topics import find

KEYED = 3
"""Partitions of a topic that has more than one."""


class MemoryLookup(RecordLookup):
    """A `RecordLookup` over records; their offsets may have gaps."""

    def __init__(self, records: list[Record]):
        self._log: dict[tuple[str, int], list[Record]] = defaultdict(list)
        for record in sorted(records, key=lambda record: record.offset):
            self._log[record.topic, record.partition].append(record)

    async def bounds(self, topic):
        if not any(name == topic for name, _ in self._log):
            return []
        ends = [self._log[topic, n] for n in range(min(KEYED, find(topic).partitions))]
        return [(log[0].offset, log[-1].offset + 1) if log else (0, 0) for log in ends]

    async def forgotten(self, address):
        bounds = await self.bounds(address.topic)
        return address.partition < len(bounds) and address.offset < bounds[address.partition][0]

    async def span(self, topic, partition, *, start=None, end=None):
        for record in self._log[topic, partition]:
            if (start or 0) <= record.offset and (end is None or record.offset < end):
                yield record

    async def whole(self, topic, since=None, *, stall_s=None):
        for partition, (first, end) in enumerate(await self.bounds(topic)):
            start = (since or {}).get(partition, first)
            async for record in self.span(topic, partition, start=start, end=end):
                yield record

    async def at_time(self, topic, partition, timestamp):
        late = [r.offset for r in self._log[topic, partition] if r.timestamp >= timestamp]
        bounds = await self.bounds(topic)
        return min(late, default=bounds[partition][1] if partition < len(bounds) else 0)

    async def stretch(self, topic, partition, offset, *, most=None):
        ahead = [r for r in self._log[topic, partition] if r.offset >= offset][: most or 100]
        return ahead, ahead[-1].offset + 1 if ahead else offset

    async def records(self, addresses):
        found = {r.address: r for log in self._log.values() for r in log}
        return {at: found[at] for at in addresses if at in found}

    def addresses(self, topic) -> list[RecordAddress]:
        """Where the records of a topic stand."""
        return [r.address for (name, _), log in self._log.items() if name == topic for r in log]
