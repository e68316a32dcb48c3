"""Faults planted on purpose: what the chaos run must catch, or it proves nothing.

`python -m tests.chaos.processes.planted_faults NAME SECONDS POLL_MS VERB ...` changes the production classes and runs the
console verb, with its clock off by so many seconds, and polls that wait so long. NAME `none` plants
nothing: the control of a fault is the same schedule without it.
Nothing here is ever imported by the product.
"""

import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch


def dedupe_off() -> None:
    """Repeats count: hosts forget what their predecessors finished, the grouper what it has."""
    from odradek.agents.host.recovery import Recovery
    from odradek.streams.stages.grouper import OpenGroup

    async def first(*_: Any) -> int:
        return 1

    Recovery.next_attempt = first
    took = OpenGroup.take

    def take(self: Any, record: Any, head: Any) -> str:
        self._episodes.clear()
        self._counting.pop(head.sample, None)
        return took(self, record, head)

    OpenGroup.take = take


def commit_first() -> None:
    """Offsets are committed before the results are written."""
    from odradek.streams.drivers import kafka
    from tests.support.streams.split_commits import OffsetsFirst

    kafka.FencedWriter = OffsetsFirst


def no_seek() -> None:
    """A new owner goes on where its consumer stands, although it was handed records meanwhile."""
    from odradek.infra.bus import PartitionGroup
    from odradek.streams.drivers.kafka import KafkaDriver

    begin, enter = PartitionGroup._begin, PartitionGroup._enter

    def without(reader: Any, names: tuple[str, ...], call: Callable[..., None], *args: Any) -> None:
        with ExitStack() as stack:
            for name in names:
                stack.enter_context(patch.object(reader, name, lambda *_: None))
            call(*args)

    def unpaused(self: Any, number: int) -> None:
        names = ("seek", "pause") if isinstance(self._owner, KafkaDriver) else ()
        without(self._reader, names, begin, self, number)

    def unsought(self: Any, number: int, position: int) -> None:
        driver = self._owner
        # Only where nothing was ever committed a first position must be set.
        committed = (
            isinstance(driver, KafkaDriver) and driver._partitions[number].stage_partition.done
        )
        without(self._reader, ("seek",) if committed else (), enter, self, number, position)

    PartitionGroup._begin = unpaused
    PartitionGroup._enter = unsought
    KafkaDriver._put_back = lambda _: None


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
    from odradek.streams.drivers.partition import KafkaPartition

    advance = KafkaPartition.advance

    def act(self: Any, messages: Any, clock: float) -> Any:
        partition = self.stage_partition
        stage = partition.stage
        acted = []
        if stage.ticks and partition.position >= partition.done and partition.fold.overdue(clock):
            at = max(partition.position - 1, partition.done)
            record = Record(stage.source.name, self.where.partition, at, None, b"", (), clock)
            outputs = partition.fold.feed(record, Tick(writer="clock"))
            acted = [partition._write(record, output) for output in outputs]
        if not acted:
            return advance(self, messages, clock)
        feed = partition.feed
        partition.feed = lambda records: [*acted, *feed(records)]
        try:
            return advance(self, messages, clock)
        finally:
            partition.feed = feed

    KafkaPartition.advance = act
    KafkaPartition._tick = lambda *_: None


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
