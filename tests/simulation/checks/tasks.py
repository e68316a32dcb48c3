"""What the dispatcher did with the tasks."""

from collections import Counter
from statistics import mean

from odradek.schemas import codec
from odradek.schemas.codec import header
from odradek.schemas.events import Batch, EpisodesEvent, GroupOpened, Step, Task
from odradek.schemas.ids import message_id, partition_for, repeat_id
from odradek.schemas.topics import BATCHES, DLQ, EPISODES, STEPS, TASKS
from tests.simulation.checks.logs import Find, events
from tests.simulation.scenario import BELOW
from tests.simulation.world import World


def expected(world: World) -> Find:
    """Each task is expected exactly once, and nothing else is."""
    found = Counter(
        event.task_id
        for _, event in events(world, EPISODES.name, EpisodesEvent)
        if isinstance(event, GroupOpened)
    )
    asked = {task.task_id for task in world.asked()}
    for task in {*found, *asked}:
        n = found[task] if task in asked else -found[task]
        if n != 1:
            yield f"{task} was expected {n} times"


def requests(world: World) -> Find:
    """Each sample of each task is asked for exactly once, and nothing else is."""
    asked = world.hosts.seen
    tasks = world.asked()
    for task in tasks:
        for sample in range(task.group_size):
            n = asked[message_id(task.task_id, sample)]
            if n != 1:
                yield f"sample {sample} of {task.task_id} was asked for {n} times"
    if asked.total() > sum(task.group_size for task in tasks):
        yield f"{asked.total()} samples were asked for"


def repeats(world: World) -> Find:
    """Each training task whose group came out badly is published once more, and no other is."""
    batches = {batch.task_id: batch for _, batch in events(world, BATCHES.name, Batch)}
    found = Counter(task.task_id for _, task in events(world, TASKS.name, Task) if task.repeats)
    wanted = {
        repeat_id(task.task_id)
        for task in world.asked()
        if task.repeats < world.scenario.repeats
        and task.purpose == "train"
        and (batch := batches.get(task.task_id)) is not None
        and batch.episodes
        and mean(pointer.reward for pointer in batch.episodes) < BELOW
    }
    for task in {*found, *wanted}:
        n = found[task] if task in wanted else -found[task]
        if n != 1:
            yield f"{task}, which repeats a task, was published {n} times"


def credit(world: World) -> Find:
    """At no moment more groups of a partition are out than credit allows.

    A training group is out from its GroupOpened to the trainer's word that its batch is behind it, a
    group of an evaluation to its batch. Every dispatcher counts its own partitions.
    """
    seen = {
        message[:3]
        for topic in (EPISODES, BATCHES, STEPS)
        for message in world.cluster.committed(topic.name)
    }
    size = len(world.cluster.topics[TASKS.name])
    limits = {"train": world.scenario.open_groups, "eval": 2}
    out: dict[str, GroupOpened] = {}
    closed: dict[str, int] = {}
    for message in world.appended:
        if message[:3] not in seen:
            continue
        if message.topic == BATCHES.name:
            batch = codec.decode(message.value, Batch)
            closed[batch.task_id] = message.offset
            if batch.purpose == "eval":
                out.pop(batch.task_id, None)
        elif message.topic == STEPS.name:
            step = codec.decode(message.value, Step)
            if step.run != world.training.run:
                continue  # it only reads
            passed = step.source if world.scenario.mixed else step.position
            for task in [task for task in out if closed.get(task, passed) < passed]:
                del out[task]
        elif isinstance(event := codec.decode(message.value, EpisodesEvent), GroupOpened):
            out[event.task_id] = event
            place = partition_for(event.task_id, size)
            n = sum(
                one.purpose == event.purpose and partition_for(task, size) == place
                for task, one in out.items()
            )
            if n > limits[event.purpose]:
                yield f"{event.task_id} was the {n}th group of partition {place} to be out"


def given_back(world: World) -> Find:
    """In the end no dispatcher counts a group as out: what it lost is another's to count."""
    for life, n in world.out.items():
        if n:
            yield f"{life} still counts {n} groups as out"


def refused(world: World) -> Find:
    """What is no task that can go out is a dead letter of the dispatcher, and nothing else is."""
    letters = {
        (message.key, message.value)
        for message in world.cluster.committed(DLQ.name)
        if header(message.headers, "dlq-consumer") == "dispatcher"
    }
    junk = set(world.junk)
    for one in junk ^ letters:
        yield f"{one} is {'no dead letter' if one in junk else 'a dead letter'}"


def forgotten(world: World) -> Find:
    """In the end the dispatchers hold no task any more: their low-water marks are at the end."""
    known = world.cluster.offsets[world.bus_of("any").group("dispatcher")]
    for partition in world.cluster.topics[TASKS.name]:
        end = partition.last + 1
        mark = known.get(partition.name)
        if end and (mark is None or mark.offset < end):
            held = (mark.offset, mark.metadata) if mark else None
            yield f"the dispatcher stands at {held} of {end} on {partition.name}"
