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
    missing = {task.task_id for task in world.asked()} - world.batches
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
    for settings in world.trainings:
        run = settings.run
        if (position := _highest(world, STEPS.name, "position", run)) < batches:
            return f"the trainer of run {run} stands at {position} of {batches}"
        trainer = world.trainers.get(run)
        if trainer is None or trainer.writing is not None:
            return f"a checkpoint of run {run} is being written, or was not told"
    newest = _last(world, POLICIES.name, "version", world.training.run)
    behind = [
        engine.url
        for engine in world.engines.all
        if engine.up and (engine.paused or engine.version != newest)
    ]
    return f"{behind[0]} does not sample with version {newest}" if behind else ""


def _last(world: "World", topic: str, field: str, run: str) -> int:
    """A number in a run's last record on a topic of one partition, 0 if there is none."""
    return [0, *_numbers(world, topic, field, run)][-1]


def _highest(world: "World", topic: str, field: str, run: str) -> int:
    """The highest such number in the run's records."""
    return max(_numbers(world, topic, field, run), default=0)


def _numbers(world: "World", topic: str, field: str, run: str) -> list[int]:
    log = world.cluster.topics[topic][0].log
    values = [msgspec.json.decode(one.message.value) for one in log if one.message is not None]
    return [value.get(field, 0) for value in values if value.get("run") == run]
