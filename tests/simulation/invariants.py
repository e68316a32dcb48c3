"""What must hold once a world has come to rest, read from its logs with the code as it is."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from aiokafka import TopicPartition

from odradek.infra.bus import record_of
from odradek.schemas import codec
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import (
    Batch,
    Episode,
    EpisodesEvent,
    Expected,
    Opened,
    Outcome,
    Policy,
    Reward,
    Sealed,
    Step,
    Tick,
    TurnsEvent,
)
from odradek.schemas.ids import message_id
from odradek.schemas.topics import BATCHES, DLQ, EPISODES, POLICIES, STEPS, TURNS
from odradek.streams.fold import Stage
from odradek.streams.lane import Lane
from odradek.streams.ledger import Ledger
from odradek.trainer import checkpoint
from odradek.trainer.consumption import Consumption, why_not
from odradek.trainer.rows import Group
from odradek.trainer.standing import lineage_of, stand
from simulation.cluster import Message
from simulation.trainer import FIRST, WEIGHTS, after
from simulation.world import STAGES, TIMES, World

Find = Iterator[str]


def broken(world: World) -> list[str]:
    """Every invariant that does not hold, in words."""
    found = list(world.failures)
    if found:
        return found
    for check in (
        ghosts,
        folds,
        marks,
        conservation,
        stories,
        requests,
        deadlines,
        line,
        versions,
    ):
        with world.reading():
            found += [f"{check.__name__}: {what}" for what in check(world)]
    return found


def _events(world: World, topic: str, kind: Any) -> Iterator[tuple[Message, Any]]:
    for message in world.cluster.committed(topic):
        try:
            yield message, codec.decode(message.value, kind)
        except InvalidRecord:
            continue


def ghosts(world: World) -> Find:
    """No lane holds a story once everything has ended."""
    for lane, n in world.ghosts.items():
        yield f"{lane} still holds {n} stories"


# -- the streams


class Folded:
    """What one owner without any trouble makes of a partition."""

    def __init__(self, stage: Stage, where: TopicPartition, world: World) -> None:
        bus = world.bus_of("any")
        size = len(world.cluster.topics[where.topic])
        lane = Lane(stage, where.partition, partitions=size)
        messages, end = world.cluster.partition(where).read(0, committed=True, most=1 << 60)
        self.outputs: list[Any] = []
        self.low: dict[int, int] = {0: 0}
        """Low-water mark by position."""
        for message in messages:
            self.outputs += lane.feed([record_of(message, bus)])
            self.low[lane.position] = lane.low_water
        self.position = lane.position
        self.open = lane.fold.open()
        self.end = end


def folds(world: World) -> Find:
    """What the stages wrote is, byte for byte, what one owner without trouble writes."""
    wanted: Counter[Any] = Counter()
    found: Counter[Any] = Counter()
    order: dict[Any, list[Any]] = defaultdict(list)
    for stage in STAGES:
        for partition in world.cluster.topics[stage.source.name]:
            folded = Folded(stage, partition.name, world)
            if folded.open:
                yield f"{stage.name}: {folded.open} stories of {partition.name} never end"
            for out in folded.outputs:
                key = out.key.encode(errors="surrogateescape") if out.key is not None else None
                wanted[out.topic, key, out.value, out.headers] += 1
                order[stage.name, partition.name, out.topic, key].append(out.value)
    sinks = {sink.name for stage in STAGES for sink in stage.sinks} | {DLQ.name}
    ours = {f"/{stage.name}".encode() for stage in STAGES}
    names = {stage.name.encode() for stage in STAGES}
    told: dict[Any, list[Any]] = defaultdict(list)
    for topic in sorted(sinks):
        for message in world.cluster.committed(topic):
            heads = dict(message.headers)
            if topic == DLQ.name:
                mine = heads.get("dlq-consumer") in names
            elif topic == TURNS.name:
                mine = (message.value or b"").startswith(b'{"type":"reward"')
            else:
                mine = heads.get("ce_source") in ours
            if mine and not (message.value or b"").startswith(b'{"type":"tick"'):
                found[topic, message.key, message.value, message.headers] += 1
                told[topic, message.key].append(message.value)
    for what in list((wanted - found).elements())[:3]:
        yield f"lost on {what[0]}: {what[1]!r} {(what[2] or b'')[:200]!r}"
    for what in list((found - wanted).elements())[:3]:
        yield f"too much on {what[0]}: {what[1]!r} {(what[2] or b'')[:200]!r} {what[3][-3:]}"
    for (stage_name, where, topic, key), values in order.items():
        if topic != DLQ.name and not _within(values, told[topic, key]):
            yield f"{stage_name} wrote results of {where} in another order for {key!r}"


def _within(some: list[Any], every: list[Any]) -> bool:
    rest = iter(every)
    return all(one in rest for one in some)


def marks(world: World) -> Find:
    """No low-water mark was ever beyond an open story, and in the end none is held back."""
    folded = {
        (stage.name, partition.name): Folded(stage, partition.name, world)
        for stage in STAGES
        for partition in world.cluster.topics[stage.source.name]
    }
    last: dict[Any, tuple[int, int]] = {}
    for name, where, low, done in world.commits:
        fold = folded[name, where]
        at = max(position for position in fold.low if position <= done)
        # Behind the last record only markers and aborted records stand.
        if low > fold.low[at] and fold.low[at] != at:
            yield f"{name} committed {low} on {where} at {done}, but a story opens at {fold.low[at]}"
        if done < last.get((name, where), (0, 0))[1]:
            yield f"{name} took its done mark back on {where}: {last[name, where]} to {done}"
        last[name, where] = low, done
    for (name, where), fold in folded.items():
        if fold.position and last.get((name, where), (0, 0))[0] < fold.position:
            yield f"{name} holds {where} back at {last.get((name, where))} of {fold.position}"


def conservation(world: World) -> Find:
    """`odradek verify` finds nothing that does not close."""
    bus = world.bus_of("any")
    ledger = Ledger()
    for topic in (TURNS, EPISODES, BATCHES, DLQ, STEPS):
        for message in world.cluster.committed(topic.name):
            ledger.feed(record_of(message, bus))
    report = ledger.report()
    for name in ("lost", "duplicated", "open", "problems"):
        if report[name]:
            yield f"{name}: {report[name][:3]}"
    if report["repeats"]:
        yield f"{report['repeats']} episodes were written twice"


# -- the stories, by what their hosts know of them


def stories(world: World) -> Find:
    """Each episode came to what its host had told, once, with each turn and reward counted once."""
    episodes: dict[str, list[Episode]] = defaultdict(list)
    for _, event in _events(world, EPISODES.name, EpisodesEvent):
        if isinstance(event, Episode):
            episodes[event.episode_id].append(event)
    for episode in episodes.keys() - world.hosts.told.keys():
        yield f"episode {episode} was never opened by a host"
    rewards: dict[str, list[float]] = defaultdict(list)
    for _, reward in _events(world, TURNS.name, TurnsEvent):
        if isinstance(reward, Reward):
            rewards[reward.episode_id].append(reward.value)
    for told in world.hosts.told.values():
        found = episodes.get(told.episode, [])
        if len(found) != 1:
            yield f"{len(found)} episodes of {told}"
            continue
        (episode,) = found
        if told.sure and (episode.outcome, episode.n_turns) != (told.outcome, told.turns):
            yield f"{told} became {episode.outcome} with {episode.n_turns} turns"
        trained = [turn for run in episode.sequences for turn in run.turn_ids]
        if len(trained) != len(set(trained)) or len(trained) > told.turns:
            yield f"{told}: turns are trained twice: {trained}"
        if episode.outcome is Outcome.COMPLETED and episode.reward != rewards[told.episode][0]:
            first = rewards[told.episode]
            yield f"{told}: reward {episode.reward}, but the first of {first} counts"


def requests(world: World) -> Find:
    """Each sample of each task was asked for exactly once, each task expected exactly once."""
    asked = world.hosts.seen
    for task in world.tasks:
        for sample in range(task.group_size):
            n = asked[message_id(task.task_id, sample)]
            if n != 1:
                yield f"sample {sample} of {task.task_id} was asked for {n} times"
    expected = Counter(
        event.task_id
        for _, event in _events(world, EPISODES.name, EpisodesEvent)
        if isinstance(event, Expected)
    )
    for task in world.tasks:
        if expected[task.task_id] != 1:
            yield f"{task.task_id} was expected {expected[task.task_id]} times"
    if asked.total() > sum(task.group_size for task in world.tasks):
        yield f"{asked.total()} samples were asked for"


def deadlines(world: World) -> Find:
    """Nothing expires early, whatever the clocks of drivers say: the broker's time counts."""
    began: dict[str, float] = {}
    sealed: dict[str, float] = {}
    for message, event in _events(world, TURNS.name, TurnsEvent):
        at = message.timestamp / 1000
        if isinstance(event, Opened):
            began.setdefault(event.episode_id, at)
        elif isinstance(event, Sealed):
            sealed.setdefault(event.episode_id, at)
    groups: dict[str, float] = {}
    for message, event in _events(world, EPISODES.name, EpisodesEvent):
        if isinstance(event, Expected):
            groups.setdefault(event.task_id, message.timestamp / 1000)
        elif isinstance(event, Episode) and "deadline" in event.error:
            due = began[event.episode_id] + TIMES.run_s + TIMES.seal_s
            if event.closed_at < due:
                yield f"{event.episode_id} was given up {due - event.closed_at:.1f} s early"
        elif isinstance(event, Episode) and event.outcome is Outcome.UNREWARDED:
            due = sealed[event.episode_id] + TIMES.reward_s
            if event.closed_at < due:
                yield f"{event.episode_id} went unrewarded {due - event.closed_at:.1f} s early"
    ticks = [
        message.timestamp / 1000
        for message, event in _events(world, EPISODES.name, EpisodesEvent)
        if isinstance(event, Tick)
    ]
    for _, batch in _events(world, BATCHES.name, Batch):
        missing = any(one.reason == "missing" for one in batch.exclusions)
        due = groups[batch.task_id] + TIMES.group_s
        if missing and not any(tick >= due for tick in ticks):
            yield f"{batch.task_id} was closed before its deadline"


# -- the trainer


def _groups(world: World) -> Iterator[Group]:
    """Every batch with its pointers followed, in order."""
    for message, batch in _events(world, BATCHES.name, Batch):
        episodes: list[Any] = []
        for pointer in () if why_not(batch) else batch.episodes:
            log = world.cluster.topics[pointer.topic][pointer.partition].log
            record = log[pointer.offset].message
            assert record is not None
            episodes.append((pointer, codec.decode(record.value, Episode)))
        yield Group(message.offset, batch, tuple(episodes))


def line(world: World) -> Find:
    """The weights are those of a trainer that never died, and each batch moved them once."""
    settings = world.training
    ledger = [step for _, step in _events(world, STEPS.name, Step)]
    policies = [policy for _, policy in _events(world, POLICIES.name, Policy)]
    standing = stand(settings, ledger, policies)
    lineage = lineage_of(settings, ledger, standing)
    consumption = Consumption(settings.rules, lineage)
    rows = [row for group in _groups(world) for row in consumption.feed(group)]
    size, weights, steps = settings.rows_per_step, FIRST, 0
    chain = [FIRST]
    while len(rows) - steps * size >= size:
        weights = after(weights, rows[steps * size : (steps + 1) * size])
        chain.append(weights)
        steps += 1
    newest = checkpoint.newest(settings.output_dir)
    stored = (newest / WEIGHTS).read_text() if newest is not None else FIRST
    if standing.position.step < steps // world.weather.save_every * world.weather.save_every:
        yield f"the last checkpoint is of step {standing.position.step}, the log gives {steps}"
    elif stored != chain[standing.position.step]:
        yield f"the weights of step {standing.position.step} are not those of an undisturbed run"
    if world.engine.weights != chain[min(steps, len(chain) - 1)]:
        yield f"the engine has other weights than an undisturbed run after {steps} steps"
    made: dict[int, Step] = {}
    for step in ledger:
        if not step.optimized:
            continue
        before = made.get(step.step)
        if before is not None and step.weights != before.weights:
            yield f"step {step.step} was made twice, with other rows"
        # Told twice is no harm: the answer of the first was lost. Made twice is.
        if before is not None and before.checkpoint and step.checkpoint != before.checkpoint:
            yield f"step {step.step} was made again although its checkpoint was told"
        made[step.step] = step


def versions(world: World) -> Find:
    """No policy version ever named two weights, and what engines had last is told."""
    named: dict[int, str] = {}
    for version, weights in world.engine.told:
        if named.setdefault(version, weights) != weights:
            yield f"version {version} named two weights"
    told = [policy.version for _, policy in _events(world, POLICIES.name, Policy)]
    if told and max(told) != world.engine.version:
        yield f"the engine has version {world.engine.version}, the log tells {max(told)}"
