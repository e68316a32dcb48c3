"""What the trainer made of the batches, against one that never died."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from odradek.schemas import codec
from odradek.schemas.events import Batch, Episode, Policy, Step
from odradek.schemas.topics import BATCHES, POLICIES, STEPS
from odradek.trainer import checkpoint
from odradek.trainer.consumption import Consumption, Position, why_not
from odradek.trainer.rows import Group
from odradek.trainer.standing import Standing, lineage_of
from simulation.checks.logs import Find, events
from simulation.trainer import FIRST, WEIGHTS, after, skipped
from simulation.world import World


class Course(NamedTuple):
    """The ledger, and the weights after each step of a trainer that never died."""

    ledger: list[Step]
    policies: list[Policy]
    chain: list[str]

    @property
    def steps(self) -> int:
        """How many steps the log is good for."""
        return len(self.chain) - 1


def _groups(world: World) -> Iterator[Group]:
    """Every batch with its pointers followed, in order."""
    for message, batch in events(world, BATCHES.name, Batch):
        episodes: list[Any] = []
        for pointer in () if why_not(batch) else batch.episodes:
            log = world.cluster.topics[pointer.topic][pointer.partition].log
            record = log[pointer.offset].message
            assert record is not None
            episodes.append((pointer, codec.decode(record.value, Episode)))
        yield Group(message.offset, batch, tuple(episodes))


@lru_cache(maxsize=1)
def course(world: World) -> Course:
    """Of the world that is being judged."""
    settings = world.training
    ledger = [step for _, step in events(world, STEPS.name, Step)]
    policies = [policy for _, policy in events(world, POLICIES.name, Policy)]
    newest = checkpoint.newest(settings.output_dir)
    step = checkpoint.position_of(newest)["step"] if newest is not None else 0
    lineage = lineage_of(settings, ledger, Standing(folder=newest, position=Position(step=step)))
    consumption = Consumption(settings.rules, lineage)
    rows = [row for group in _groups(world) for row in consumption.feed(group)]
    size, chain = settings.rows_per_step, [FIRST]
    for at in range(0, len(rows) - size + 1, size):
        step = rows[at : at + size]
        skip = skipped(len(chain), chain[-1], step)
        chain.append(chain[-1] if skip else after(chain[-1], step))
    return Course(ledger, policies, chain)


def weights(world: World) -> Find:
    """Each batch moved the weights once: those of every step are an undisturbed run's."""
    told = course(world)
    if world.engine.weights != told.chain[-1]:
        yield f"the engine has other weights than an undisturbed run after {told.steps} steps"
    made = {step.step: step for step in told.ledger if step.optimized or step.skipped}
    for number, step in made.items():
        if number > told.steps:
            yield f"step {number} was made, but the log is good for {told.steps}"
        elif number % world.training.sync_every == 0 and step.weights != told.chain[number]:
            yield f"step {number} was made with other rows than an undisturbed run's"
    for number in range(1, told.steps + 1):
        if number not in made:
            yield f"step {number} was never told"


def checkpoints(world: World) -> Find:
    """The newest checkpoint is of the last step that has one, and holds its weights.

    None that the ledger told of is gone, unless newer ones have pushed it out.
    """
    told = course(world)
    every = world.weather.save_every
    newest = checkpoint.newest(world.training.output_dir)
    step = checkpoint.position_of(newest)["step"] if newest is not None else 0
    stored = (newest / WEIGHTS).read_text() if newest is not None else FIRST
    announced = max((one.step for one in told.ledger if one.checkpoint), default=0)
    if step < announced:
        yield f"step {announced}'s checkpoint was told, and the newest that is there is {step}'s"
    elif step < told.steps // every * every:
        yield f"the last checkpoint is of step {step}, the log gives {told.steps}"
    elif step > told.steps or stored != told.chain[step]:
        yield f"the weights of step {step} are not those of an undisturbed run"


def remade(world: World) -> Find:
    """No step is made again once its checkpoint was told, and none with other rows."""
    made: dict[int, Step] = {}
    for step in course(world).ledger:
        if not (step.optimized or step.skipped):
            continue
        before = made.get(step.step)
        if before is not None and step.weights != before.weights:
            yield f"step {step.step} was made twice, with other rows"
        # Told twice is no harm: the answer of the first was lost. Made twice is.
        if before is not None and before.checkpoint and step.checkpoint != before.checkpoint:
            yield f"step {step.step} was made again although its checkpoint was told"
        made[step.step] = step


def policies(world: World) -> Find:
    """A policy is told once the engines have it, as what they have; the last one they have is told."""
    told = course(world)
    loaded = {version: (at, what) for at, version, what in world.engine.told}
    for message, policy in events(world, POLICIES.name, Policy):
        at, what = loaded.get(policy.version, (float("inf"), ""))
        if (policy.digest, policy.digest) != (what, told.chain[min(policy.step, told.steps)]):
            yield f"version {policy.version} is told as other weights than step {policy.step}'s"
        if world.appended_at[message[:3]] < at:
            yield f"version {policy.version} was told before an engine had it"
    last = max((policy.version for policy in told.policies), default=0)
    if last != world.engine.version:
        yield f"the engine has version {world.engine.version}, the log tells {last}"


def versions(world: World) -> Find:
    """Every version is new to the engines, and the ledger took it before they had it."""
    taken: dict[int, float] = {}
    for message, step in events(world, STEPS.name, Step):
        taken.setdefault(step.version, world.appended_at[message[:3]])
    before = 0
    for at, version, _ in world.engine.told:
        if version <= before:
            yield f"version {version} reached an engine after version {before}"
        if taken.get(version, float("inf")) > at:
            yield f"version {version} reached an engine before the ledger had taken it"
        before = version
