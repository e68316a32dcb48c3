"""Several engines: who is waited for, who is gone on without, and how one comes back."""

import asyncio
from itertools import product
from pathlib import Path

import pytest

from odradek.trainer.errors import EngineDown, EngineRefused
from odradek.trainer.weights import fleet
from odradek.trainer.weights.fleet import Fleet, SwapDecision, SwapStatus, verdict

LOADING, HAS, AWAY, REFUSED = (
    SwapStatus.LOADING,
    SwapStatus.HAS,
    SwapStatus.AWAY,
    SwapStatus.REFUSED,
)
WAIT, GO, GIVE_UP = SwapDecision.WAIT, SwapDecision.GO, SwapDecision.GIVE_UP


@pytest.mark.parametrize(
    ("fates", "before", "after"),
    [
        ([], GO, GO),
        ([HAS], GO, GO),
        ([LOADING], WAIT, GIVE_UP),
        ([AWAY], WAIT, GIVE_UP),
        ([REFUSED], GIVE_UP, GIVE_UP),
        ([HAS, HAS], GO, GO),
        ([HAS, LOADING], WAIT, GO),
        ([HAS, AWAY], GO, GO),
        ([HAS, REFUSED], GO, GO),
        ([AWAY, LOADING], WAIT, GIVE_UP),
        ([AWAY, AWAY], WAIT, GIVE_UP),
        ([AWAY, REFUSED], WAIT, GIVE_UP),
        ([REFUSED, LOADING], WAIT, GIVE_UP),
        ([REFUSED, REFUSED], GIVE_UP, GIVE_UP),
    ],
)
def test_a_swap_waits_for_those_that_are_at_it_and_for_the_first_that_has_it(fates, before, after):
    """Before and after the time is up, in whatever order the engines stand."""
    for found in (fates, fates[::-1]):
        assert (before, after) == (verdict(found, over=False), verdict(found, over=True))


def test_no_number_of_engines_stops_a_swap_that_one_of_them_has():
    """Once the time is up; and before it none that is away."""
    for fates in product(SwapStatus, repeat=4):
        assert (GO if HAS in fates else GIVE_UP) is verdict(fates, over=True)
        if HAS in fates and LOADING not in fates:
            assert GO is verdict(fates, over=False)


class Played:
    """An engine of a test: dead, hanging, refusing or well, and what it was made to load."""

    def __init__(self, url):
        self.url = url
        self.state = "well"
        self.version = 0
        self.loads = []
        self.ended = asyncio.Event()
        """Its process has: whoever waits for it hears of that."""
        self.tells = True
        self.dies_loading = False
        self.slow = None
        """An Event that ends its loads."""

    async def _there(self):
        if self.state == "hangs":
            await self.ended.wait()
            raise EngineDown("the connection broke")
        if self.state == "dead":
            raise EngineDown("nobody")

    async def answers(self):
        await self._there()

    async def serves(self):
        await self._there()
        return self.version if self.tells else None

    async def load(self, folder, version, began):
        self.loads.append(version)
        await self._there()
        for _ in range(5):
            await asyncio.sleep(0)  # others go on before it answers
        began()
        if self.dies_loading:
            self.state, self.dies_loading = "dead", False
            raise EngineDown("it died")
        if self.state == "refuses":
            raise EngineRefused(f"{self.url} says 500")
        if self.slow is not None:
            await self.slow.wait()
        self.version = version

    def start_anew(self):
        """As a plain vLLM comes back: with its first weights."""
        self.ended.set()
        self.state, self.version = "well", 0


class Bench:
    def __init__(self, n=2, timeout_s=0.3):
        self.engines = [Played(f"http://engine-{n}") for n in range(n)]
        self.told = []
        self.fleet = Fleet(self.engines, timeout_s=timeout_s, tell=self.told.append)

    async def swap(self, version):
        """The versions after it, engine by engine."""
        found = await self.fleet.swap(Path(f"v{version}"), version)
        assert [engine.url for engine in self.engines] == list(found)
        return list(found.values())

    async def until(self, condition):
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.005)


@pytest.fixture
async def bench(monkeypatch):
    """Two engines."""
    monkeypatch.setattr(fleet, "LOOK_S", 0.02)
    monkeypatch.setattr(fleet, "LONGEST_PAUSE_S", 0.05)
    made = Bench()
    yield made
    await made.fleet.aclose()


async def test_all_engines_load_at_once(bench):
    """Neither waits for the other; the swap is over when both have the weights."""
    gates = [asyncio.Event(), asyncio.Event()]
    bench.engines[0].slow, bench.engines[1].slow = gates
    bench.fleet._timeout_s = 5
    swapping = asyncio.create_task(bench.swap(1))
    await bench.until(lambda: all(engine.loads == [1] for engine in bench.engines))
    gates[1].set()
    await bench.until(lambda: bench.engines[1].version == 1)
    assert not swapping.done()
    gates[0].set()
    assert [1, 1] == await swapping
    assert [] == bench.told


async def test_one_dead_engine_of_two_stops_nothing(bench):
    """Nobody waits for it, it is told once, and no version counts as its."""
    bench.fleet._timeout_s = 1000
    bench.engines[0].state = "dead"
    async with asyncio.timeout(5):
        for version in (1, 2, 3):
            await bench.fleet.reach()
            assert [0, version] == await bench.swap(version)
    assert ["engine http://engine-0 does not answer: waiting for it"] == bench.told


@pytest.mark.parametrize("state", ["dead", "hangs"])
async def test_an_engine_that_comes_back_is_loaded_before_the_next_swap(bench, state):
    """With the newest weights, not with those that it missed first."""
    assert [1, 1] == await bench.swap(1)
    bench.engines[0].state = state
    for version in (2, 3):
        assert [0, version] == await bench.swap(version)
    bench.engines[0].loads.clear()
    bench.engines[0].start_anew()
    await bench.until(lambda: bench.engines[0].version == 3)
    assert {3} == set(bench.engines[0].loads)
    await bench.until(lambda: len(bench.told) == 2)
    assert "engine http://engine-0 is back, and has version 3" == bench.told[1]
    assert [4, 4] == await bench.swap(4)


async def test_an_engine_that_hangs_is_waited_for_once_and_not_longer_than_the_timeout(bench):
    """It equals a dead one from then on."""
    loop = asyncio.get_running_loop()
    bench.engines[1].state = "hangs"
    began = loop.time()
    assert [1, 0] == await bench.swap(1)
    assert loop.time() - began >= 0.3
    bench.fleet._timeout_s = 1000
    async with asyncio.timeout(5):
        assert [2, 0] == await bench.swap(2)
    assert ["engine http://engine-1 does not answer: waiting for it"] == bench.told


@pytest.mark.parametrize("gate", ["hangs", "load"])
async def test_an_engine_that_hangs_does_not_slow_the_others(bench, gate):
    """They have the weights, and sample with them, while it is waited for."""
    bench.fleet._timeout_s = 1000
    if gate == "hangs":
        bench.engines[0].state = "hangs"
    else:
        bench.engines[0].slow = asyncio.Event()
    swapping = asyncio.create_task(bench.swap(1))
    await bench.until(lambda: bench.engines[1].version == 1)
    assert not swapping.done()
    swapping.cancel()


async def test_an_engine_that_dies_in_the_middle_of_a_swap_is_gone_on_without(bench):
    """Behind the pause, before it has its name; started anew it is loaded like any other."""
    assert [1, 1] == await bench.swap(1)
    bench.engines[0].dies_loading = True
    assert [0, 2] == await bench.swap(2)
    bench.engines[0].start_anew()
    await bench.until(lambda: bench.engines[0].version == 2)


async def test_an_engine_that_refuses_is_gone_on_without_and_said_once(bench):
    """It is asked again all the same: somebody may mend it."""
    bench.engines[0].state = "refuses"
    assert [0, 1] == await bench.swap(1)
    await bench.until(lambda: len(bench.engines[0].loads) > 3)
    assert ["http://engine-0 says 500"] == bench.told
    bench.engines[0].state = "well"
    await bench.until(lambda: bench.engines[0].version == 1)
    assert [2, 2] == await bench.swap(2)


@pytest.mark.parametrize(
    ("first", "second", "error"),
    [
        ("dead", "dead", EngineDown),
        ("dead", "hangs", EngineDown),
        ("hangs", "hangs", EngineDown),
        ("refuses", "refuses", EngineRefused),
        ("dead", "refuses", EngineRefused),
        ("refuses", "hangs", EngineRefused),
    ],
)
async def test_a_swap_that_no_engine_takes_ends_with_the_reason(bench, first, second, error):
    """A refusal says more than silence."""
    bench.engines[0].state, bench.engines[1].state = first, second
    with pytest.raises(error):
        await bench.swap(1)


async def test_the_first_of_dead_engines_that_comes_back_lets_the_trainer_go_on(bench):
    """While all are away it waits for one of them."""
    bench.fleet._timeout_s = 1000
    for engine in bench.engines:
        engine.state = "dead"
    reaching = asyncio.create_task(bench.fleet.reach())
    await bench.until(lambda: len(bench.told) == 2)
    assert not reaching.done()
    bench.engines[1].start_anew()
    await asyncio.wait_for(reaching, 5)
    swapping = asyncio.create_task(bench.swap(1))
    assert [0, 1] == await asyncio.wait_for(swapping, 5)


async def test_nobody_within_reach_is_an_error_that_names_them_all(bench):
    """After the timeout, whether they refuse connections or take them and say nothing."""
    bench.engines[0].state, bench.engines[1].state = "dead", "hangs"
    with pytest.raises(EngineDown, match="http://engine-0, http://engine-1"):
        await bench.fleet.reach()


@pytest.mark.parametrize("tells", [True, False])
async def test_an_engine_that_was_started_anew_between_two_swaps_is_loaded_again(bench, tells):
    """It is asked what it serves; one that cannot say is known by having been away."""
    bench.engines[0].tells = tells
    assert [1, 1] == await bench.swap(1)
    if not tells:
        bench.engines[0].state = "dead"
        await bench.until(lambda: bench.told)
    bench.engines[0].start_anew()
    await bench.until(lambda: bench.engines[0].version == 1)
    assert [1, 1] == bench.engines[0].loads[:2]
    assert [1] == bench.engines[1].loads


async def test_a_load_that_comes_late_does_not_pass_for_the_newest(bench):
    """It began before the swap that followed; its engine loads the newest behind it."""
    bench.engines[0].slow = asyncio.Event()
    assert [0, 1] == await bench.swap(1)
    swapped = await bench.swap(2)
    assert [0, 2] == swapped
    assert [1] == bench.engines[0].loads
    bench.engines[0].slow.set()
    await bench.until(lambda: bench.engines[0].version == 2)
    assert [1, 2] == bench.engines[0].loads
    assert [3, 3] == await bench.swap(3)


async def test_a_late_load_of_older_weights_ends_no_swap(bench):
    """Nobody has the newest by then."""
    gates = [asyncio.Event(), asyncio.Event()]
    bench.engines[0].slow, bench.engines[1].slow = gates
    with pytest.raises(EngineDown):
        await bench.swap(1)
    bench.fleet._timeout_s = 5
    swapping = asyncio.create_task(bench.swap(2))
    gates[0].set()
    bench.engines[0].slow = asyncio.Event()
    await bench.until(lambda: bench.engines[0].loads == [1, 2])
    assert not swapping.done()
    bench.engines[0].slow.set()
    assert [2, 0] == await swapping


async def test_a_bug_in_a_client_ends_the_swap(bench):
    """It is no engine's doing, so nobody waits for anything."""
    bench.fleet._timeout_s = 1000
    bench.engines[0].slow = asyncio.Event()

    async def broken(*_):
        raise KeyError("a bug")

    bench.engines[1].load = broken
    with pytest.raises(KeyError):
        await asyncio.wait_for(bench.swap(1), 5)


async def test_no_engines_are_no_error():
    """A replay has none."""
    alone = Fleet([], timeout_s=0.1, tell=print)
    await alone.reach()
    assert {} == await alone.swap(Path("v1"), 1)
