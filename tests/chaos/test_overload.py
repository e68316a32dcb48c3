"""R9: the trainer stands still, everything else goes on, nothing grows and nothing is dropped.

The ten minutes of the guarantees:
`ODRADEK_OVERLOAD_MINUTES=10 scripts/test -m chaos -s tests/chaos/test_overload.py`
"""

import json
import os

import pytest

from tests.chaos.scenarios.overload import OPEN_EVALS, OPEN_GROUPS, Overload

pytestmark = [pytest.mark.chaos, pytest.mark.broker, pytest.mark.timeout(1800)]

MINUTES = float(os.environ.get("ODRADEK_OVERLOAD_MINUTES", "1"))


async def test_a_trainer_that_stands_still_stops_the_rollouts_and_nothing_grows(broker, tmp_path):
    """Groups out stay at the dispatcher's bound; stale rows are refused by rule and counted."""
    found = await Overload(broker, tmp_path, pause_s=MINUTES * 60, waiting=4 * OPEN_GROUPS).run()
    print(json.dumps(found, indent=1))
    if path := os.environ.get("ODRADEK_OVERLOAD_JSON"):
        with open(path, "w") as file:
            json.dump(found, file, indent=1)
    assert OPEN_GROUPS == found["out_at_most"]["train"]
    assert OPEN_EVALS >= found["out_at_most"]["eval"]
    assert OPEN_GROUPS == found["waiting_when_it_went_on"]
    assert found["refused"].get("stale", 0) > 0
    assert [] == found["not_closed"]
    assert found["closed"]
    grown = {
        name: one
        for name, one in found["memory"].items()
        if one["grown_mb"] > max(4.0, 0.03 * one["mb"])
    }
    assert {} == grown
