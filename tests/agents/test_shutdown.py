"""A host or a dispatcher that is told to end gives its partitions up at once, unless it has a name."""

import asyncio

import pytest

pytestmark = pytest.mark.broker


@pytest.fixture
def bus(bus):
    """Whoever waits for a session to end waits longer than a test may."""
    return bus.model_copy(update={"session_timeout_ms": 60_000})


async def play(rollout):
    pass


async def test_a_host_that_ends_leaves_its_group(stage):
    """The others have its partitions as soon as they hear of it."""
    first, second = await stage.host(play), await stage.host(play)
    await stage.until(lambda: first._owned and second._owned)
    await stage.stop(first)
    await stage.until(lambda: len(second._owned) == stage.bus.topic_partitions, timeout=60)


async def test_a_host_with_a_name_keeps_its_partitions_while_it_is_restarted(stage):
    """It is the same member when it is back: nobody else is disturbed."""
    first, second = [await stage.host(play, instance=name) for name in ("a", "b")]
    await stage.until(lambda: first._owned and second._owned)
    owned, generation = set(second._owned), second._reader._coordinator.generation
    await stage.stop(first)
    again = await stage.host(play, instance="a")
    await stage.until(lambda: again._owned, timeout=60)
    assert (owned, generation) == (set(second._owned), second._reader._coordinator.generation)


async def test_a_dispatcher_that_ends_leaves_its_group(stage):
    """The tasks of its partitions go out by another."""
    from odradek.agents.dispatch.dispatcher import Dispatcher
    from odradek.agents.settings import DispatchSettings

    pair = [Dispatcher(DispatchSettings(), stage.bus) for _ in range(2)]
    runs = [asyncio.create_task(one.run()) for one in pair]
    first, second = pair
    await stage.until(lambda: first._partitions and second._partitions)
    first.stop()
    await runs[0]
    await stage.until(lambda: len(second._partitions) == stage.bus.topic_partitions, timeout=60)
    second.stop()
    await runs[1]
