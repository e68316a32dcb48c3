"""The product on a simulated Kafka: seeds without a fault to find, and planted faults found."""

import os
import time

import pytest

from simulation.planted import PLANTED
from simulation.trial import attempt, shrink

FIRST = int(os.environ.get("ODRADEK_SIMULATE_FROM", "0"))
SEEDS = 240
ENOUGH_S = 60.0
"""CI stops here where its machine is slow; at least a third of the seeds are tried all the same."""


def test_no_seed_breaks_an_invariant():
    """Nothing lost, nothing twice, nothing early, under kills, freezes, rebalances and outages."""
    began = time.monotonic()
    for seed in range(FIRST, FIRST + SEEDS):
        verdict = attempt(seed)
        assert () == verdict.failures, (
            f"repeat with: scripts/simulate --from {seed} --seeds 1\n" + "\n".join(verdict.trace)
        )
        if time.monotonic() - began > ENOUGH_S and seed - FIRST >= SEEDS // 3:
            break


@pytest.mark.parametrize("name", sorted(PLANTED))
def test_a_planted_fault_is_found(name):
    """Within a few seeds; otherwise the simulation would prove nothing."""
    found = next((seed for seed in range(60) if attempt(seed, name).failures), None)
    assert found is not None
    assert () == attempt(found).failures


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
