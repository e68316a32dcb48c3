"""Live views count what stands in their window, and change nothing on the log."""

import asyncio
import time

import pytest

from odradek.infra.bus import KafkaAppender, Record, ensure_topics, looking_up
from odradek.infra.runtime.imports import import_entry
from odradek.schemas import codec
from odradek.schemas.events import EpisodeHead, Outcome
from odradek.schemas.topics import DLQ, EPISODES
from odradek.streams.views import VIEWS
from odradek.streams.views.live import main, view_driver
from odradek.streams.views.rates import Rates


def head(reward: float | None = 1.0, agent: str = "hilo", **more) -> EpisodeHead:
    return EpisodeHead(
        episode_id="e", task_id="t", agent=agent, sample=0, group_size=2, reward=reward, **more
    )


def at(time: float) -> Record:
    return Record(EPISODES.name, 0, 0, "t", b"", (), time)


def test_rates_are_by_agent_and_forget_what_left_the_window():
    """Episodes that do not count have no say in the mean reward, and imported ones are none."""
    rates = Rates(window_s=10)
    rates.add(at(0.0), head(5.0))
    rates.add(at(15.0), head(1.0))
    rates.add(at(16.0), head(0.0))
    rates.add(at(17.0), head(None, outcome=Outcome.HOST_LOST))
    rates.add(at(18.0), head(agent="other"))
    rates.add(at(19.0), head(agent="else", imported_from="chat"))
    shown = rates.snapshot(20.0)["agents"]
    assert {
        "episodes_per_s": 0.3,
        "reward_mean": 0.5,
        "outcomes": {"completed": 2, "host_lost": 1},
    } == shown["hilo"]
    assert ["hilo", "other"] == list(shown)


def test_each_view_of_the_table_can_be_made_and_shows_something():
    """Also before it was given anything."""
    for place in VIEWS.values():
        view = import_entry(place)()
        assert codec.union(view.source)
        assert view.snapshot(0.0) is not None


def test_a_view_that_is_not_there_is_a_mistake():
    """Whose line names those that are."""
    with pytest.raises(SystemExit, match="no view is called 'rate'; there are rates"):
        main(["rate"])


@pytest.mark.broker
async def test_a_view_sees_what_comes_and_writes_nothing(bus):
    """On Faust: from now on, all partitions; what it cannot read makes no dead letter of its own."""
    await ensure_topics(bus)
    appender = await KafkaAppender.connect(bus)

    async def append(task, value):
        await appender.append(EPISODES.name, key=task, value=value, headers=())

    await append("before", codec.encode(head(agent="before")))
    rates = Rates()
    driver = view_driver(bus, "rates", rates)
    running = asyncio.create_task(driver.run())
    await driver.ready.wait()
    shown = {}
    while len(shown) < 3:  # its first fetch may come after what is written now
        for n in range(3):
            await append(f"t{n}", codec.encode(head(agent=f"a{n}")))
            await append(f"t{n}", b"no event")
        await asyncio.sleep(0.1)
        shown = rates.snapshot(time.time())["agents"]
    assert ["a0", "a1", "a2"] == list(shown)
    driver.stop()
    await running
    async with looking_up(bus) as lookup:
        assert {(0, 0)} == set(await lookup.bounds(DLQ.name))
    await appender.aclose()
