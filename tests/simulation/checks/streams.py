"""The stages against one owner without trouble, their marks, and `odradek verify`."""

from collections import Counter, defaultdict
from functools import lru_cache
from typing import Any

from aiokafka import TopicPartition

from odradek.infra.bus import record_of
from odradek.schemas.topics import BATCHES, DLQ, EPISODES, MIXED, POLICIES, REVISIONS, STEPS, TURNS
from odradek.streams.partition import StagePartition
from odradek.streams.stage import Stage
from odradek.streams.verify import Conservation
from tests.simulation.checks.logs import Find
from tests.simulation.world import STAGES, World


class Folded:
    """What one owner without any trouble makes of a partition."""

    def __init__(self, stage: Stage, where: TopicPartition, world: World) -> None:
        bus = world.bus_of("any")
        partition = StagePartition(
            stage, where.partition, partitions=len(world.cluster.topics[where.topic])
        )
        messages, _ = world.cluster.partition(where).read(0, committed=True, most=1 << 60)
        self.stage = stage
        self.where = where
        self.outputs: list[Any] = []
        self.low: dict[int, int] = {0: 0}
        """Low-water mark by position."""
        for message in messages:
            self.outputs += partition.feed([record_of(message, bus)])
            self.low[partition.position] = partition.low_water
        self.position = partition.position
        self.open = partition.fold.open()


class Folding:
    """All partitions of all stages, folded; what they should write, and what stands there."""

    def __init__(self, world: World) -> None:
        self.all = [
            Folded(stage, partition.name, world)
            for stage in STAGES
            for partition in world.cluster.topics[stage.source.name]
        ]
        self.wanted: Counter[Any] = Counter()
        self.order: dict[Any, list[Any]] = defaultdict(list)
        for folded in self.all:
            for out in folded.outputs:
                key = out.key.encode(errors="surrogateescape") if out.key is not None else None
                self.wanted[out.topic, key, out.value, out.headers] += 1
                self.order[folded.stage.name, folded.where, out.topic, key].append(out.value)
        self.found: Counter[Any] = Counter()
        self.told: dict[Any, list[Any]] = defaultdict(list)
        for topic in sorted({sink.name for stage in STAGES for sink in stage.sinks} | {DLQ.name}):
            for message in world.cluster.committed(topic):
                if _by_a_stage(topic, message):
                    self.found[topic, message.key, message.value, message.headers] += 1
                    self.told[topic, message.key].append(message.value)


def _by_a_stage(topic: str, message: Any) -> bool:
    """Whether a stage wrote this, and not because of the time."""
    heads, value = dict(message.headers), message.value or b""
    if value.startswith(b'{"type":"tick"'):
        return False
    if topic == DLQ.name:
        return heads.get("dlq-consumer") in {stage.name.encode() for stage in STAGES}
    if topic == TURNS.name:
        return value.startswith(b'{"type":"reward"')
    if topic == REVISIONS.name:
        return True
    return heads.get("ce_source") in {f"/{stage.name}".encode() for stage in STAGES}


@lru_cache(maxsize=1)
def folding(world: World) -> Folding:
    """Of the world that is being judged."""
    return Folding(world)


def ghosts(world: World) -> Find:
    """No partition holds a story once everything has ended."""
    for partition, n in world.ghosts.items():
        yield f"{partition} still holds {n} stories"


def unended(world: World) -> Find:
    """Every story ends."""
    for folded in folding(world).all:
        if folded.open:
            yield f"{folded.stage.name}: {folded.open} stories of {folded.where} never end"


def lost(world: World) -> Find:
    """What the stages should write, byte for byte, they wrote."""
    for what in list((folding(world).wanted - folding(world).found).elements())[:3]:
        yield f"{what[0]}: {what[1]!r} {(what[2] or b'')[:200]!r}"


def repeated(world: World) -> Find:
    """They wrote nothing else, and nothing twice."""
    for what in list((folding(world).found - folding(world).wanted).elements())[:3]:
        yield f"{what[0]}: {what[1]!r} {(what[2] or b'')[:200]!r} {what[3][-3:]}"


def order(world: World) -> Find:
    """What one partition caused for a key stands in the order of that partition."""
    for (stage, where, topic, key), values in folding(world).order.items():
        if topic != DLQ.name and not _within(values, folding(world).told[topic, key]):
            yield f"{stage} wrote results of {where} in another order for {key!r}"


def _within(some: list[Any], every: list[Any]) -> bool:
    rest = iter(every)
    return all(one in rest for one in some)


def low_water(world: World) -> Find:
    """No low-water mark was ever beyond an open story, nor beyond what was written."""
    folded = {(one.stage.name, one.where): one for one in folding(world).all}
    for name, where, low, done in world.commits:
        fold = folded[name, where]
        at = max(position for position in fold.low if position <= done)
        # Behind the last record only markers and aborted records stand.
        if low > fold.low[at] and fold.low[at] != at:
            yield f"{name} committed {low} on {where} at {done}, but a story opens at {fold.low[at]}"
        if low > done:
            yield f"{name} committed {low} on {where}, and had only come to {done}"


def done_marks(world: World) -> Find:
    """No done mark was ever taken back."""
    last: dict[Any, int] = {}
    for name, where, _, done in world.commits:
        if done < last.get((name, where), 0):
            yield f"{name} took its done mark back on {where}: {last[name, where]} to {done}"
        last[name, where] = done


def held_back(world: World) -> Find:
    """In the end no low-water mark is held back."""
    last = {(name, where): low for name, where, low, _ in world.commits}
    for one in folding(world).all:
        low = last.get((one.stage.name, one.where), 0)
        if low < one.position:
            yield f"{one.stage.name} holds {one.where} back at {low} of {one.position}"


def conservation(world: World) -> Find:
    """`odradek verify` finds nothing that does not close, versions and policies among it."""
    bus = world.bus_of("any")
    ledger = Conservation()
    for topic in (STEPS, TURNS, EPISODES, BATCHES, MIXED, REVISIONS, POLICIES, DLQ):
        for message in world.cluster.committed(topic.name):
            ledger.feed(record_of(message, bus))
    report = ledger.report()
    for name in ("lost", "duplicated", "open", "problems"):
        if report[name]:
            yield f"{name}: {report[name][:3]}"
    if report["repeats"]:
        yield f"{report['repeats']} episodes were written twice"
    for purpose in ("conservation", "eval"):
        if not report[purpose]["closed"]:
            yield f"the sums of {purpose} do not close: {report[purpose]}"
