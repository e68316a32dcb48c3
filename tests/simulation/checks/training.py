"""What the trainer made of the batches, against one that never died."""

from collections.abc import Callable, Iterator
from functools import lru_cache, wraps
from typing import Any, NamedTuple

from odradek.schemas import codec
from odradek.schemas.events import Batch, Episode, Policy, Step
from odradek.schemas.topics import POLICIES, STEPS
from odradek.trainer.commit import checkpoint
from odradek.trainer.commit.cadence import Cadence
from odradek.trainer.commit.resume import ResumePoint, lineage_of
from odradek.trainer.feed.cursor import Cursor, Position
from odradek.trainer.feed.rows import EpisodeGroup
from odradek.trainer.feed.rules import why_not
from odradek.trainer.settings import TrainerSettings
from tests.simulation.checks.logs import Find, events
from tests.simulation.engines import FIRST
from tests.simulation.trainer import WEIGHTS, after, skipped, too_large
from tests.simulation.world import World


class Course(NamedTuple):
    """The ledger, and the weights after each step of a trainer that never died."""

    ledger: list[Step]
    policies: list[Policy]
    chain: list[str]
    unfit: list[set[tuple[int, int | None]]]
    """Batch and row of those that fit into no memory, by step."""

    @property
    def steps(self) -> int:
        """How many steps the log is good for."""
        return len(self.chain) - 1


def _groups(world: World) -> Iterator[EpisodeGroup]:
    """Every batch with its pointers followed, in order."""
    for message, batch in events(world, world.training.batches_topic, Batch):
        episodes: list[Any] = []
        for pointer in () if why_not(batch) else batch.episodes:
            log = world.cluster.topics[pointer.topic][pointer.partition].log
            record = log[pointer.offset].message
            assert record is not None
            episodes.append((pointer, codec.decode(record.value, Episode)))
        yield EpisodeGroup(message.offset, batch, tuple(episodes))


@lru_cache(maxsize=2)
def course(world: World, of: int = 0) -> Course:
    """Of a trainer of the world that is being judged; the first one leads."""
    settings = world.trainings[of]
    entries = [step for _, step in events(world, STEPS.name, Step)]
    ledger = [step for step in entries if step.run == settings.run]
    policies = [
        policy for _, policy in events(world, POLICIES.name, Policy) if policy.run == settings.run
    ]
    # By time, the newest checkpoint may be of an earlier step: no start went on from there.
    last = max((step.step for step in ledger), default=0)
    lineage = lineage_of(settings, entries, ResumePoint(position=Position(step=last)))
    consumption = Cursor(settings.rules, lineage)
    rows = [row for group in _groups(world) for row in consumption.feed(group)]
    size, chain, unfit = settings.rows_per_step, [FIRST], [set()]
    for at in range(0, len(rows) - size + 1, size):
        step, number = rows[at : at + size], len(chain)
        fitting = [row for row in step if not too_large(number, row)]
        skip = not fitting or skipped(number, chain[-1], fitting)
        chain.append(chain[-1] if skip else after(chain[-1], fitting))
        unfit.append({(row.offset, row.index) for row in step if row not in fitting})
    return Course(ledger, policies, chain, unfit)


Check = Callable[[World], Find]


def _of_each(check: Callable[[World, Course, TrainerSettings], Find]) -> Check:
    """A check of every trainer, by its own ledger and folder."""

    @wraps(check)
    def every(world: World) -> Find:
        for of, settings in enumerate(world.trainings):
            for found in check(world, course(world, of), settings):
                yield f"{found} (run {settings.run})"

    return every


@_of_each
def weights(_world: World, told: Course, settings: TrainerSettings) -> Find:
    """Each batch moved the weights once: those of every step are an undisturbed run's."""
    made = {step.step: step for step in told.ledger if step.optimized or step.skipped}
    for number, step in made.items():
        if number > told.steps:
            yield f"step {number} was made, but the log is good for {told.steps}"
        elif number % settings.sync_every == 0 and step.weights != told.chain[number]:
            yield f"step {number} was made with other rows than an undisturbed run's"
    for number in range(1, told.steps + 1):
        if number not in made:
            yield f"step {number} was never told"


@_of_each
def no_memory(_world: World, told: Course, _settings: TrainerSettings) -> Find:
    """Rows that fit into no memory are refused by name in their step, and no others are."""
    for step in told.ledger:
        refused = {(one.offset, one.row) for one in step.refused if one.reason == "no_memory"}
        made = step.optimized or step.skipped
        if refused != (told.unfit[step.step] if made and step.step <= told.steps else set()):
            yield f"step {step.step} refused {sorted(refused)} for want of memory"


@_of_each
def checkpoints(_world: World, told: Course, settings: TrainerSettings) -> Find:
    """The newest checkpoint is of the last step that has one, holds its weights, and was told.

    None that the ledger told of is gone, unless newer ones have pushed it out.
    """
    every = Cadence.of(settings.save_every).steps or told.steps + 1
    newest = checkpoint.newest(settings.output_dir)
    step = checkpoint.position_of(newest)["step"] if newest is not None else 0
    stored = (newest / WEIGHTS).read_text() if newest is not None else FIRST
    announced = max((one.step for one in told.ledger if one.checkpoint), default=0)
    if step < announced:
        yield f"step {announced}'s checkpoint was told, and the newest that is there is {step}'s"
    elif step < told.steps // every * every:
        yield f"the last checkpoint is of step {step}, the log gives {told.steps}"
    elif step > told.steps or stored != told.chain[step]:
        yield f"the weights of step {step} are not those of an undisturbed run"
    if newest is not None:
        digest = checkpoint.verify(newest)
        if not any(one.checkpoint == digest for one in told.ledger):
            yield f"the checkpoint of step {step} is durable, and was never told"


@_of_each
def remade(_world: World, told: Course, settings: TrainerSettings) -> Find:
    """No step is made again once its checkpoint was told, and none with other rows."""
    made: dict[int, Step] = {}
    durable: dict[int, str] = {}
    every = settings.sync_every
    for step in told.ledger:
        if step.optimized or step.skipped:
            before = made.get(step.step)
            if before is not None:
                # Between two transfers the weights in force are those of where the start began.
                moved = step.step % every == 0 and step.weights != before.weights
                if moved or step.used != before.used:
                    yield f"step {step.step} was made twice, with other rows"
            # Told twice is no harm: the answer of the first was lost. Made twice is.
            known = step == before or step.checkpoint == durable.get(step.step)
            if step.step <= max(durable, default=0) and not known:
                yield f"step {step.step} was made again although its checkpoint was told"
            made[step.step] = step
        if step.checkpoint:
            durable[step.step] = step.checkpoint


def policies(world: World) -> Find:
    """A policy is told once an engine has it, as what it has; and of each engine only what it had."""
    told = course(world)
    for message, policy in events(world, POLICIES.name, Policy):
        if policy.run != world.training.run:
            if policy.name == world.training.policy_name or policy.engines:
                yield f"run {policy.run} told a policy as if it led: {policy}"
            continue
        at = world.appended_at[message[:3]]
        if policy.digest != told.chain[min(policy.step, told.steps)]:
            yield f"version {policy.version} is told as other weights than step {policy.step}'s"
        if policy.version not in policy.engines.values():
            yield f"version {policy.version} was told, and no engine is named that has it"
        for engine in world.engines.all:
            version = policy.engines.get(engine.url, 0)
            had = {one.version: one.weights for one in engine.had if one.at <= at}
            if version not in had:
                yield f"{engine.url} is said to have version {version}, and had {sorted(had)} then"
            elif version == policy.version and had[version] != policy.digest:
                yield f"{engine.url} had other weights as version {version} than were told"


def engines(world: World) -> Find:
    """In the end each engine that is up samples with the newest version, wherever it had been.

    The newest is what the log tells last, and is as many steps old at most as are between two
    transfers.
    """
    told = course(world)
    if not told.policies:
        return
    newest = max(told.policies, key=lambda policy: policy.version)
    every = world.training.sync_every
    if newest.step < told.steps // every * every:
        yield f"the log tells the weights of step {newest.step} last, and gives {told.steps} steps"
    for engine in world.engines.all:
        if engine.up and (engine.version, engine.weights) != (newest.version, newest.digest):
            yield f"{engine.url} has version {engine.version}, the log tells {newest.version}"
        if engine.up and engine.paused:
            yield f"{engine.url} samples nothing: it was left paused"


def adapters(world: World) -> Find:
    """No engine ever holds more adapters than it was started with room for."""
    room = world.training.max_staleness + 2
    for engine in world.engines.all:
        if engine.most_adapters > room:
            yield f"{engine.url} held {engine.most_adapters} adapters at once, with room for {room}"


def versions(world: World) -> Find:
    """Every version is one set of weights, new to each engine, and the ledger took it before."""
    taken: dict[int, float] = {}
    for message, step in events(world, STEPS.name, Step):
        if step.run != world.training.run:
            continue
        taken.setdefault(step.version, world.appended_at[message[:3]])
    weighs: dict[int, str] = {}
    for engine in world.engines.all:
        before = 0
        for at, version, what in engine.had:
            if version == 0:  # it was started anew
                before = 0
                continue
            if version <= before:
                yield f"version {version} reached {engine.url} after version {before}"
            if taken.get(version, float("inf")) > at:
                yield f"version {version} reached {engine.url} before the ledger had taken it"
            if weighs.setdefault(version, what) != what:
                yield f"version {version} was two sets of weights"
            before = version


def fresh(world: World) -> Find:
    """What the engines sample is never too old for the next step: else no step would follow."""
    begun: dict[int, int] = {}
    for step in course(world).ledger:
        begun.setdefault(step.version, step.step)
        behind = step.step - begun[step.version]
        if (step.optimized or step.skipped) and behind > world.training.max_staleness:
            yield (
                f"after step {step.step} version {step.version} is in force, which is "
                f"{behind} steps old: all rows would be refused from here on"
            )


def goes_on(world: World) -> Find:
    """While one engine is well, no trouble of the others ends a trainer."""
    if any(engine.steady for engine in world.engines.all):
        for at, error in world.without_engines:
            yield f"{at:.1f} s: a trainer ended although an engine was well all the time: {error}"
