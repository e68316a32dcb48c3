"""Several engines in trouble, and steps that are skipped where a transfer is due."""

from dataclasses import replace

import pytest

from tests.simulation.checks import broken
from tests.simulation.checks.training import course
from tests.simulation.faults import Faults
from tests.simulation.planted.training import skipped_steps_sent_nowhere
from tests.simulation.test_regressions import CALM
from tests.simulation.world import World

pytestmark = pytest.mark.slow

LEARNING = replace(CALM, tasks=10, group_size=3, open_groups=1, engines=2)
"""A calm world that makes some steps."""


def seen(world):
    """What failed, and the steps that were made."""
    found = broken(world)
    with world.reading():
        steps = {step.step: step for step in course(world).ledger if step.optimized or step.skipped}
    return found, steps


@pytest.mark.parametrize("sync_every", [1, 2, 3])
def test_a_skip_where_a_transfer_is_due_does_not_stop_training(sync_every, monkeypatch):
    """At the tightest `max_staleness` there is: it did, for ever, if nothing was sent then."""
    scenario = replace(LEARNING, sync_every=sync_every, spare_staleness=0)
    for seed in range(30):
        world = World(seed, scenario=scenario)
        world.run()
        found, steps = seen(world)
        assert [] == found
        skipped = [n for n, one in steps.items() if one.skipped and n % sync_every == 0]
        if skipped and max(steps) > min(skipped):
            break
    else:
        pytest.fail("no seed had such a skip")
    for place, name, thing in skipped_steps_sent_nowhere():
        monkeypatch.setattr(place, name, thing)
    world = World(seed, scenario=scenario)
    world.run()
    assert "fresh" in {failure.check for failure in seen(world)[0]}


class Troubled(Faults):
    """The second engine is in one kind of trouble from the beginning, the first never."""

    how, until = "", 0.0

    def schedule(self):
        super().schedule()
        engine, loop = self.world.engines.all[1], self.world.loop
        if self.how == "dead":
            engine.die()
        elif self.how == "hangs":
            engine.hangs_until = self.until
        elif self.how == "refuses":
            engine.refuses = True
        elif self.how == "lags":
            engine.slow_s = 1.5
        if self.how == "dies again and again":
            for at in range(1, int(self.until), 4):
                loop.call_at(at, engine.die, context=loop.root)
                loop.call_at(at + 1.5, engine.start, context=loop.root)


@pytest.mark.parametrize("gone", [False, True], ids=["it comes back", "it stays away"])
@pytest.mark.parametrize("how", ["dead", "hangs", "refuses", "lags", "dies again and again"])
def test_one_engine_in_trouble_stops_no_training(how, gone):
    """Steps follow meanwhile, policies name who has them, and whoever is back gets the newest."""
    kind = type("Kind", (Troubled,), {"how": how, "until": 30.0})
    steps = 0
    for seed in range(2):
        scenario = replace(LEARNING, trouble_s=30.0, steady_engine=True, engine_gone=gone)
        world = World(seed, scenario=scenario, faults=kind)
        world.run()
        found, _ = seen(world)
        assert [] == found
        assert [] == world.without_engines
        well, other = world.engines.all
        steps += len([one for one in well.had if one.at < 30.0]) - 1
        assert (not gone or how != "dead") is other.up
    assert steps > 0
