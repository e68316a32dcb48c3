"""The proof of `scripts/prove kills`, small: kill -9 a host under running tasks."""

import pytest

from tests.chaos.orphans import prove


@pytest.mark.chaos
@pytest.mark.broker
@pytest.mark.timeout(280)
async def test_every_task_of_a_killed_host_ends_and_its_streams_show_it_whole(bus, tmp_path):
    """Two of them wait for their client meanwhile; all complete, as the policy asks."""
    run = await prove(bus, tmp_path, tasks=20, orphans="restart", kills=1)
    assert [] == run["problems"]
    assert (20, 20, 2, 0) == tuple(
        run[name] for name in ("running_when_killed", "completed", "waiting_after", "failed")
    )
