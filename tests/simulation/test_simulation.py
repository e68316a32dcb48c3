"""The product on a simulated Kafka: seeds without a fault to find, and planted faults found."""

import os

import pytest

from tests.simulation.checks import CHECKS
from tests.simulation.failure import Failure
from tests.simulation.planted import PLANTED, finding
from tests.simulation.trial import attempt, shrink

pytestmark = pytest.mark.slow

FIRST = int(os.environ.get("ODRADEK_SIMULATE_FROM", "0"))
SEEDS = 40
"""Few, for the time that they take: `scripts/prove simulate` tries as many as one likes."""


def test_no_seed_breaks_an_invariant():
    """Nothing lost, nothing twice, nothing early, under kills, freezes, rebalances and outages."""
    for seed in range(FIRST, FIRST + SEEDS):
        verdict = attempt(seed)
        assert () == verdict.failures, (
            f"repeat with: scripts/prove simulate --from {seed} --seeds 1\n"
            + "\n".join(verdict.trace)
        )


@pytest.mark.parametrize("name", sorted(PLANTED))
def test_a_planted_fault_is_found(name):
    """Within a few seeds, by each check that is there to find it; and it is the fault's doing."""
    fault = PLANTED[name]
    missing, seeds = set(fault.found_by), []
    for seed in range(fault.since, fault.since + 60):
        if found := missing & finding(name, attempt(seed, name).failures):
            missing -= found
            seeds.append(seed)
        if not missing:
            break
    assert set() == missing
    for seed in seeds:
        assert () == attempt(seed, scenario=fault.scenario(seed)).failures


def test_a_world_that_merely_stands_still_has_found_nothing():
    """No planted fault counts as found because a process ends, or the world never rests."""
    weak = {"rest", "ended", "unhandled", "unjudged"}
    checks = {check.__name__ for check in CHECKS}
    assert set() == weak & checks
    for name, fault in PLANTED.items():
        assert fault.found_by
        assert fault.found_by <= checks, name
        assert frozenset() == finding(name, tuple(Failure(one, "so it is") for one in weak))


def test_a_seed_is_the_same_world_every_time():
    """The same seed gives the same records on every topic, at the same times."""
    first, second = attempt(7), attempt(7)
    assert first == second
    assert first.records > 50


def test_a_failure_becomes_small():
    """What is told of a failing seed is only the faults that it takes."""
    tried = (attempt(seed, "done-mark-ignored") for seed in range(60))
    verdict = next(one for one in tried if one.failures and len(one.faults) > 5)
    small = shrink(verdict, "done-mark-ignored", tries=30)
    assert small.failures
    assert len(small.faults) < len(verdict.faults)
