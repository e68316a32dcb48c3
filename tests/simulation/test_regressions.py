"""What the simulation has found, each as a small world of its own."""

import asyncio
from dataclasses import replace
from random import Random

import pytest

from odradek.agents.dispatch import dispatcher
from odradek.schemas.events import EpisodeOpened, TurnsEvent
from odradek.schemas.topics import BATCHES, TURNS
from tests.simulation.checks import broken
from tests.simulation.checks.logs import events
from tests.simulation.faults import Faults
from tests.simulation.network import Chances
from tests.simulation.planted.stages import fenced_fold_goes_on
from tests.simulation.planted.tasks import credit_not_given_back, fenced_goes_on
from tests.simulation.scenario import Scenario
from tests.simulation.world import TIMES, World

pytestmark = pytest.mark.slow

CALM = replace(
    Scenario.drawn(Random(0)),
    tasks=8,
    group_size=1,
    partitions=2,
    workers=2,
    trouble_s=15.0,
    kill_every=float("inf"),
    freeze_every=float("inf"),
    rebalance_every=float("inf"),
    outage_every=float("inf"),
    crash_point=0.0,
    power_cut=0.0,
    skew=0.0,
    chances=Chances(lost_answer=0.02, slow=0.1),
    slow_markers=0.0,
    mischief=0.0,
    save_every=1,
    rows_per_step=1,
    open_groups=1,
    leave_every=float("inf"),
    static=False,
    engines=1,
    engine_every=float("inf"),
    steady_engine=True,
    engine_gone=False,
    sync_every=1,
    spare_staleness=4,
)


class Dispatching(Faults):
    """Only dispatchers are in trouble."""

    def victim(self, rng):
        return self.world.programs[rng.choice(["dispatch-0", "dispatch-1"])]


@pytest.mark.parametrize("seed", range(12))
def test_tasks_of_a_partition_that_changes_hands_go_out_once(seed):
    """Those that waited are not forgotten, and those that were out are not sent again.

    The batch of one that is out is heard although the next owner dies while it reads older ones.
    """
    scenario = replace(CALM, kill_every=1.0, rebalance_every=1.0, crash_point=0.01)
    world = World(seed, scenario=scenario, faults=Dispatching)
    world.run()
    assert [] == broken(world)


class SetBack(Faults):
    """Every stage's clock is ahead, its partitions are fenced, and then the clocks are set right."""

    def schedule(self):
        super().schedule()
        self.world.loop.call_at(6.0, self._fence, context=self.world.loop.root)

    def _fence(self):
        for life in self.world.lives:
            life.skew = 600.0
        for name, writer in self.world.cluster.writers.items():
            if "dispatcher" not in name:
                writer.epoch += 1


@pytest.mark.parametrize("seed", range(3))
def test_a_clock_that_is_set_back_makes_nobody_wait(seed):
    """A fenced partition is let go after half a minute of time that passes, not of the clock's.

    It was ten minutes where a clock, ahead by as much, had been set right meanwhile.
    """
    world = World(seed, scenario=replace(CALM, open_groups=8, group_size=3), faults=SetBack)
    world.run()
    assert [] == broken(world)


@pytest.fixture
def slow_rereading(monkeypatch):
    """Whoever takes a partition over reads the batches of its predecessor for two seconds."""
    read_range = dispatcher.read_range

    async def slow(bus, topic, *args, **more):
        if topic == BATCHES.name:
            await asyncio.sleep(2.0)
        async for record in read_range(bus, topic, *args, **more):
            yield record

    monkeypatch.setattr(dispatcher, "read_range", slow)


def changing_hands(seed, **more):
    """A world in which partitions go away while they are being taken over."""
    scenario = replace(
        CALM, partitions=3, trouble_s=20.0, kill_every=3.0, rebalance_every=1.0, open_groups=8
    )
    world = World(seed, scenario=replace(scenario, **more), faults=Dispatching)
    world.run()
    return {failure.check for failure in broken(world)}


def spoiled(monkeypatch, plant, check, *, since=0, world=changing_hands, **more):
    """The first seed from `since` on in whose world a check finds this fault."""
    for seed in range(since, since + 60):
        with monkeypatch.context() as planted:
            for place, name, thing in plant():
                planted.setattr(place, name, thing)
            if check in world(seed, **more):
                return seed
    pytest.fail(f"no seed from {since} on meets it")


@pytest.mark.usefixtures("slow_rereading")
def test_a_dispatcher_gives_back_the_credit_of_what_it_never_came_to_own(monkeypatch):
    """A partition that is taken away while it is being taken over holds no other task up."""
    seed = spoiled(monkeypatch, credit_not_given_back, "given_back", since=8)
    assert set() == changing_hands(seed)


@pytest.mark.usefixtures("slow_rereading")
def test_a_partition_that_comes_back_to_who_was_fenced_off_it_half_way_is_taken_over(monkeypatch):
    """A frozen dispatcher fences one that has just started, and gives it the partition back.

    It stood still until the next rebalance, with every task of it.
    """
    frozen = {"freeze_every": 3.0, "rebalance_every": 2.0, "static": True}
    seed = spoiled(monkeypatch, fenced_goes_on, "forgotten", since=75, **frozen)
    assert set() == changing_hands(seed, **frozen)


class Folding(Faults):
    """Only workers of stages are in trouble."""

    def victim(self, rng):
        stages = [name for name in self.world.programs if name.startswith(("intake", "assemble"))]
        return self.world.programs[rng.choice(stages)]


def leaving_and_frozen(seed):
    """A world whose workers are put out of their groups, come back, and end in order besides."""
    scenario = replace(
        CALM, tasks=12, group_size=3, partitions=3, trouble_s=40.0, freeze_every=2.0,
        leave_every=4.0, open_groups=8,
    )  # fmt: skip
    world = World(seed, scenario=scenario, faults=Folding)
    world.run()
    return {failure.check for failure in broken(world)}


def test_a_stage_takes_over_anew_what_another_had_while_it_was_frozen(monkeypatch):
    """Its group gives the partition back, and what it had folded is behind the log by then."""
    seed = spoiled(monkeypatch, fenced_fold_goes_on, "lost", world=leaving_and_frozen)
    assert set() == leaving_and_frozen(seed)


class Away(Faults):
    """The broker is away for longer than an episode may be open, again and again."""

    def schedule(self):
        for at in (2.0, 17.0, 32.0):
            self.world.loop.call_at(at, self._away, context=self.world.loop.root)
        super().schedule()

    def _away(self):
        self.world.cluster.down_until = self.world.loop.time() + 12.0


def test_a_repeated_opening_stands_among_the_turns_or_nowhere():
    """A repeat that an outage holds up beyond its episode's end would be a story of its own.

    The simulated hosts sent such repeats, which no host can: one fenced transaction opens each.
    """
    repeats = 0
    for seed in range(8):
        world = World(seed, scenario=replace(CALM, trouble_s=46.0, mischief=0.3), faults=Away)
        world.run()
        first = {}
        for message, event in events(world, TURNS.name, TurnsEvent):
            if isinstance(event, EpisodeOpened):
                at = first.setdefault(event.episode_id, message.timestamp)
                assert message.timestamp <= at + 1000 * (TIMES.attempt_s + TIMES.seal_s)
                repeats += at < message.timestamp
        assert [] == broken(world)
    assert repeats > 0
