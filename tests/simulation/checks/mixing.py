"""What the sampler made of batches and steps, against one that never died."""

from typing import Any

from odradek.schemas import codec
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import Batch, Step
from odradek.schemas.topics import BATCHES, MIXED, STEPS
from odradek.streams.sampler.mixer import mixed_again
from tests.simulation.checks.logs import Find
from tests.simulation.scenario import MIX
from tests.simulation.world import World


def _by_offset(world: World, topic: str, kind: type) -> dict[int, Any]:
    found: dict[int, Any] = {}
    for message in world.cluster.committed(topic):
        try:
            found[message.offset] = codec.decode(message.value, kind)
        except InvalidRecord:
            found[message.offset] = None
    return found


def mixed(world: World) -> Find:
    """Each batch is mixed once, in order, and every draw follows from the offsets that it states."""
    if not world.scenario.mixed:
        return
    batches = _by_offset(world, BATCHES.name, Batch)
    steps = _by_offset(world, STEPS.name, Step)
    written = [*_by_offset(world, MIXED.name, Batch).values()]
    fresh = [one.mixed.batch for one in written if not one.origin]
    wanted = [offset for offset, batch in batches.items() if batch is not None]
    if fresh != wanted:
        yield f"batches {wanted} were mixed as {fresh}"
        return
    marks = [one.mixed for one in written]
    again = mixed_again(MIX, marks, batches, steps)
    for number, one in enumerate(written):
        if number >= len(again) or again[number] != one:
            yield f"record {number} of the mixed topic is {one}, and should be {again[number:][:1]}"
            return
    if len(again) > len(written):
        yield f"{len(again) - len(written)} draws are missing"


def mixed_offsets(world: World) -> Find:
    """In the end the sampler has committed that it read both topics to their ends."""
    if not world.scenario.mixed:
        return
    known = world.cluster.offsets[world.bus_of("any").group("sample")]
    for topic in (BATCHES, STEPS):
        (partition,) = world.cluster.topics[topic.name]
        mark = known.get(partition.name)
        read = mark.offset if mark is not None else 0
        if read < partition.last + 1:
            yield f"the sampler stands at {read} of {partition.last + 1} on {topic.name}"
