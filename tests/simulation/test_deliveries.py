"""The push dispatcher on a simulated Kafka: seeds without a fault to find, and planted faults found."""

import os

import pytest

from tests.simulation.deliveries import CHECKS, delivered
from tests.simulation.planted.deliveries import PLANTED

pytestmark = pytest.mark.slow

SEEDS = int(os.environ.get("ODRADEK_SIMULATE_DELIVERIES", "60"))


def test_no_seed_loses_an_event_or_its_order():
    """Under kills, freezes, rebalances, orderly ends, outages and webhooks that refuse."""
    for seed in range(SEEDS):
        assert [] == delivered(seed), f"seed {seed}"


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_of_the_dispatcher_is_found(name):
    """By the check that is there to find it, within a few seeds; without the fault all is well."""
    _, check = PLANTED[name]
    assert check in CHECKS
    for seed in range(SEEDS):
        if check in {failure.check for failure in delivered(seed, name)}:
            return
    raise AssertionError(f"{name} was not found by {check}")
