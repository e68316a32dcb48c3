"""What a seed's world is like, and the settings of its processes."""

from dataclasses import dataclass, replace
from functools import cache
from random import Random

from odradek.agents.settings import DispatchSettings
from odradek.agents.trust.settings import TrustSettings
from odradek.infra.bus import BusSettings
from odradek.schemas.topics import BATCHES
from odradek.streams.sampler.rules import DrawRules, MixRules
from odradek.trainer.settings import TrainerSettings
from tests.simulation.network import Chances

BELOW = 0.5
"""Mean reward below which a group is hard."""
LOOSE = 1000
"""Steps that no row of a world is old."""
MIX = MixRules(
    fresh=1, replayed=2, draws=DrawRules(capacity=5, alpha=1.0, half_life=3.0, max_uses=3)
)
"""Of the sampler, where there is one."""


@dataclass(frozen=True)
class Scenario:
    """How bad this seed's world is; drawn so that most seeds know only some kinds of trouble."""

    tasks: int
    group_size: int
    partitions: int
    workers: int
    trouble_s: float
    kill_every: float
    freeze_every: float
    rebalance_every: float
    outage_every: float
    crash_point: float
    power_cut: float
    skew: float
    chances: Chances
    slow_markers: float
    mischief: float
    save_every: int | str
    rows_per_step: int
    open_groups: int
    engines: int
    engine_every: float
    """Seconds between two troubles of engines."""
    steady_engine: bool
    """Whether one engine is never in trouble, so that training has no reason ever to end."""
    engine_gone: bool
    """Whether an engine that has died stays away, in peace as well."""
    sync_every: int
    spare_staleness: int
    """How much `max_staleness` is above what `sync_every` needs."""
    leave_every: float
    """Seconds between two workers that end in order, and come back later."""
    static: bool
    """Whether workers have names in their groups that outlive their restarts."""
    adapters: bool = False
    """Whether a LoRA adapter is trained."""
    children: float = 0.0
    """Chance that an attempt's agent asks other agents."""
    mixed: bool = False
    """Whether a sampler draws old batches again, and the trainer reads what it writes."""
    beside: bool = False
    """Whether a second trainer, which does not lead, reads the same batches."""
    repeats: int = 0
    """How often a task that came out badly is published again at most."""

    @classmethod
    def of(cls, seed: int) -> "Scenario":
        """The scenario of a seed."""
        return cls.drawn(Random(f"{seed}/weather"))

    @classmethod
    def drawn(cls, rng: Random) -> "Scenario":
        """One at random."""

        def often(*choices: float) -> float:
            return rng.choice((float("inf"), *choices))

        found = cls(
            tasks=rng.randint(3, 8),
            group_size=rng.randint(1, 3),
            partitions=rng.randint(1, 3),
            workers=rng.randint(2, 3),
            trouble_s=rng.uniform(10, 40),
            kill_every=often(1.0, 3.0, 8.0),
            freeze_every=often(2.0, 6.0),
            rebalance_every=often(2.0, 8.0),
            outage_every=often(8.0, 20.0),
            crash_point=rng.choice((0.0, 0.005, 0.02, 0.05)),
            power_cut=rng.choice((0.0, 0.5, 1.0)),
            skew=rng.choice((0.0, 5.0, 600.0)),
            chances=Chances(
                lost_answer=rng.choice((0.0, 0.01, 0.05)),
                slow=rng.choice((0.0, 0.01, 0.05)),
                unclear=rng.choice((0.0, 0.0, 0.02)),
            ),
            slow_markers=rng.choice((0.0, 0.0, 0.1)),
            mischief=rng.choice((0.0, 0.1, 0.3)),
            save_every=rng.choice((1, 1, 2)),
            rows_per_step=rng.choice((1, 2, 4)),
            open_groups=rng.choice((1, 2, 4, 8)),
            static=rng.random() < 0.4,
            engines=rng.choice((1, 2, 2, 3)),
            engine_every=often(1.0, 3.0),
            steady_engine=rng.random() < 0.7,
            engine_gone=rng.random() < 0.3,
            sync_every=rng.choice((1, 1, 2, 3)),
            spare_staleness=rng.choice((0, 1, 3)),
            leave_every=float("inf"),
        )
        if rng.random() >= 0.5:
            # A world that trains much: of the others most make a step or two.
            found = replace(found, tasks=rng.randint(6, 12), group_size=3, rows_per_step=1)
        # Drawn last, so that all the rest of a seed's world stays as it was.
        found = replace(found, leave_every=often(2.0, 6.0), adapters=rng.random() < 0.3)
        found = replace(found, save_every=rng.choice((found.save_every, found.save_every, "4s")))
        if found.save_every != 1:
            # A death may cost several steps that were told. Rows of their weights count as twice
            # as old then, and where they are refused for it, other rows are used than without one.
            found = replace(found, spare_staleness=found.spare_staleness + LOOSE)
        found = replace(found, children=rng.choice((0.0, 0.0, 0.0, 0.6)))
        if rng.random() < 0.25:
            found = replace(
                found,
                mixed=True,
                tasks=rng.randint(8, 12),
                group_size=rng.choice((2, 3)),
                rows_per_step=rng.choice((3, 4)),  # more steps than that take too long
                crash_point=max(found.crash_point, 0.01),
            )
        if rng.random() < 0.125:
            # Little credit, so that any that is given without right shows.
            found = replace(found, beside=True, open_groups=min(found.open_groups, 2))
        return replace(found, repeats=rng.choice((0, 0, 0, 1)))


# Settings look at the environment and are slow to make: once is enough.


@cache
def bus_of(process: str, partitions: int) -> BusSettings:
    return BusSettings(bootstrap_servers=f"{process}:9092", topic_partitions=partitions)


@cache
def dispatching(open_groups: int, instance: str | None, repeats: int = 0) -> DispatchSettings:
    return DispatchSettings(
        open_groups=open_groups,
        open_evals=2,
        instance=instance,
        repeat_share=float(repeats > 0),
        repeat_below=BELOW,
        repeat_most=max(repeats, 1),
    )


@cache
def trusting() -> TrustSettings:
    return TrustSettings(unsigned="accept")


@cache
def training(
    rows_per_step: int,
    save_every: int | str,
    sync_every: int = 1,
    spare_staleness: int = 4,
    lora_rank: int = 0,
    batches_topic: str = BATCHES.name,
) -> TrainerSettings:
    return TrainerSettings(
        model="model",
        lora_rank=lora_rank,
        rows_per_step=rows_per_step,
        save_every=save_every,
        sync_every=sync_every,
        max_staleness=sync_every - 1 + spare_staleness,
        keep=2,
        batches_topic=batches_topic,
        tis=2.0,
        max_staleness_replayed=LOOSE,
        fresh_share=0.0,
    )


@cache
def following(leader: TrainerSettings) -> TrainerSettings:
    """Of a trainer beside another: it takes fewer rows a step, so it is ahead now and then."""
    return TrainerSettings(
        **leader.model_dump(
            include={
                "model", "lora_rank", "save_every", "sync_every", "keep", "batches_topic", "tis",
                "max_staleness_replayed", "fresh_share",
            }
        ),
        rows_per_step=max(1, leader.rows_per_step - 1),
        max_staleness=LOOSE,
        run="beside",
        leads=False,
    )  # fmt: skip
