"""Places of runs: no more than there are, and none is lost."""

import asyncio
from types import SimpleNamespace

import pytest

from odradek.agents.attempt.slots import RunSlots


def run():
    return SimpleNamespace(called_off=asyncio.Event())


async def inside(places, one, log, leave):
    async with places.slot(one):
        log.append(one)
        await leave.wait()


async def settled():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_run_that_is_called_off_waits_for_no_place_and_takes_none():
    """Before it waits, and while it does."""
    places, log, leave = RunSlots(1), [], asyncio.Event()
    first, off, later, last = run(), run(), run(), run()
    off.called_off.set()
    tasks = [
        asyncio.create_task(inside(places, one, log, leave)) for one in (first, off, later, last)
    ]
    await settled()
    assert [first, off] == log
    later.called_off.set()
    await settled()
    assert [first, off, later] == log
    leave.set()
    await asyncio.gather(*tasks)
    assert last is log[-1]


@pytest.mark.parametrize("waits", [0, 1, 2, 3])
async def test_a_run_that_is_cancelled_as_its_place_comes_free_leaves_it_to_others(waits):
    """Whichever of the two came first."""
    places, leave = RunSlots(1), asyncio.Event()
    holds = asyncio.create_task(inside(places, run(), [], leave))
    await settled()
    waiting = asyncio.create_task(inside(places, run(), [], asyncio.Event()))
    await settled()
    leave.set()
    for _ in range(waits):
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(holds, waiting, return_exceptions=True)
    log = []
    async with asyncio.timeout(1):
        await inside(places, run(), log, leave)
    assert 1 == len(log)
