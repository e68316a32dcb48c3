"""Faults planted on purpose: what the chaos run must catch, or it proves nothing.

`python -m tests.chaos.processes.planted_faults NAME SECONDS POLL_MS VERB ...` changes the production classes and runs the
console verb, with its clock off by so many seconds, and polls that wait so long. NAME `none` plants
nothing: the control of a fault is the same schedule without it.
Nothing here is ever imported by the product.
"""

import sys
from collections.abc import Callable
from typing import Any


def dedupe_off() -> None:
    """Repeats count: hosts forget what their predecessors finished, the grouper what it has."""
    from odradek.agents.host.recovery import Recovery
    from odradek.streams.stages.grouper import OpenGroup

    async def first(*_: Any) -> int:
        return 1

    Recovery.next_attempt = first
    took = OpenGroup.take

    def take(self: Any, record: Any, head: Any) -> str:
        self._seen.clear()
        self._counting.pop(head.sample, None)
        return took(self, record, head)

    OpenGroup.take = take


def commit_first() -> None:
    """Offsets are committed before the results are written."""
    from odradek.streams.drivers.kafka import KafkaDriver

    async def commit(self: Any, partition: Any, held: Any, out: Any, tick: Any) -> None:
        client = held.client
        await client.begin_transaction()
        await self._mark(client, partition, held.lane)
        await client.commit_transaction()
        self._at("after_commit")
        await client.begin_transaction()
        await self._produce(client, partition, out, tick)
        await client.commit_transaction()

    KafkaDriver._commit = commit


def no_seek() -> None:
    """A new owner goes on where its consumer stands, although it was handed records meanwhile."""
    from odradek.streams.drivers.kafka import KafkaDriver

    begin = KafkaDriver._begin

    async def unsought(self: Any, assigned: list[Any], clients: list[Any]) -> None:
        group = self.bus.group(self.stage.name)
        marks = await self._admin.list_consumer_group_offsets(group, partitions=assigned)
        if not hasattr(self, "_known"):
            self._known, seek = set(), self._reader.seek
            # Only where nothing was ever committed a first position must be said.
            self._reader.seek = lambda on, at: None if on in self._known else seek(on, at)
        self._known.clear()
        self._known.update(on for on, mark in marks.items() if mark.offset >= 0)
        await begin(self, assigned, clients)

    KafkaDriver._begin = unsought


def ghosts() -> None:
    """A turn of an episode that nobody opened makes state."""
    from odradek.schemas.events import EpisodeOpened
    from odradek.streams.stages.assembler import Assembler
    from odradek.streams.stages.episode import OpenEpisode

    taken = Assembler._turn

    def turn(self: Any, record: Any, event: Any) -> Any:
        if event.episode_id not in self._open:
            opened = EpisodeOpened(
                episode_id=event.episode_id, task_id=event.episode_id, agent="ghost", sample=0,
                group_size=1,
            )  # fmt: skip
            self._open[event.episode_id] = OpenEpisode(
                opened, record.offset, record.timestamp, None
            )
        return taken(self, record, event)

    Assembler._turn = turn


def tick_unread() -> None:
    """What is overdue by a process' own clock is closed at once; the log is not told of time."""
    from odradek.infra.bus import Record
    from odradek.schemas.events import Tick
    from odradek.streams.drivers.kafka import KafkaDriver

    advance = KafkaDriver._advance

    async def act(self: Any, partition: Any, held: Any, messages: Any) -> None:
        lane, now = held.lane, self._clock()
        acted = []
        if self.stage.ticks and lane.position >= lane.done and lane.fold.overdue(now):
            at = max(lane.position - 1, lane.done)
            told = Record(self.stage.source.name, partition.partition, at, None, b"", (), now)
            acted = [lane._write(told, out) for out in lane.fold.feed(told, Tick(writer="clock"))]
        if acted:
            feed = lane.feed
            lane.feed = lambda records: [*acted, *feed(records)]
            try:
                await advance(self, partition, held, messages)
            finally:
                lane.feed = feed
        else:
            await advance(self, partition, held, messages)

    KafkaDriver._advance = act
    KafkaDriver._tick = lambda *_: None


FAULTS: dict[str, Callable[[], None]] = {
    "dedupe_off": dedupe_off,
    "commit_first": commit_first,
    "no_seek": no_seek,
    "ghosts": ghosts,
    "tick_unread": tick_unread,
}

if __name__ == "__main__":
    from tests.chaos.processes import skewed_clock

    (name, seconds, poll_ms), sys.argv[1:] = sys.argv[1:4], sys.argv[4:]
    skewed_clock.apply(float(seconds))
    if int(poll_ms):
        from odradek.streams.drivers import kafka

        kafka.POLL_MS = int(poll_ms)
    if name != "none":
        FAULTS[name]()
    from odradek.infra.app.cli import main

    main()
