"""When a world has come to rest."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from odradek.schemas.topics import BATCHES, POLICIES, STEPS, TASKS
from odradek.streams.stage import Stage

if TYPE_CHECKING:
    from tests.simulation.world import World


def undone(world: "World", stages: Iterable[Stage]) -> str:
    """What is still to be done, "" if nothing is."""
    if world.loop.time() < world.cluster.down_until + 5.0:
        return "the broker was away a moment ago"
    missing = {task.task_id for task in world.tasks} - world.batches
    if len(world.tasks) < world.scenario.tasks or missing:
        return f"tasks without a batch: {sorted(missing)}"
    if world.hosts.busy:
        return f"{world.hosts.busy} samples are being played"
    readers = [(stage.name, stage.source.name) for stage in stages]
    if world.scenario.mixed:
        readers += [("sample", BATCHES.name), ("sample", STEPS.name)]
    for name, topic in (*readers, ("dispatcher", TASKS.name)):
        known = world.cluster.offsets[world.bus_of("any").group(name)]
        for partition in world.cluster.topics[topic]:
            if partition.open:
                return f"an open transaction on {partition.name}"
            end = partition.last + 1
            mark = known.get(partition.name)
            if end and (mark is None or mark.offset < end):
                held = mark.offset if mark else None
                return f"{name} stands at {held} of {end} on {partition.name}"
    batches = world.cluster.topics[world.training.batches_topic][0].last + 1
    if (position := _highest(world, STEPS.name, "position")) < batches:
        return f"the trainer stands at {position} of {batches}"
    if world.trainer is None or world.trainer.writing is not None:
        return "a checkpoint is being written, or was not told"
    newest = _last(world, POLICIES.name, "version")
    behind = [
        engine.url
        for engine in world.engines.all
        if engine.up and (engine.paused or engine.version != newest)
    ]
    return f"{behind[0]} does not sample with version {newest}" if behind else ""


def _last(world: "World", topic: str, field: str) -> int:
    """A number in the last record of a topic of one partition, 0 if there is none."""
    log = world.cluster.topics[topic][0].log
    told = [one.message.value for one in log if one.message is not None]
    return msgspec.json.decode(told[-1] or b"{}").get(field, 0) if told else 0


def _highest(world: "World", topic: str, field: str) -> int:
    """The highest such number in the records of a topic of one partition."""
    log = world.cluster.topics[topic][0].log
    told = [one.message.value for one in log if one.message is not None]
    return max((msgspec.json.decode(each or b"{}").get(field, 0) for each in told), default=0)
