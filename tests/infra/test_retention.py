"""What a run's topics take: rates of the log, and how long retention keeps them."""

import asyncio
import time

import pytest
from click.testing import CliRunner

from odradek.infra.app.bench.harness.site import kafka
from odradek.infra.app.cli import main
from odradek.infra.bus import KafkaAppender, ensure_topics
from odradek.infra.client.retention import NEEDED_FOR, TopicPlan, plan_of, plans, steps_per_s
from odradek.schemas import codec
from odradek.schemas.events import Step
from odradek.schemas.topics import BATCHES, CONVERSATIONS, EPISODES, POLICIES, STEPS, TOPICS

PLAN = TopicPlan("rl.conversations.v1", 10.0, 1000.0, 7.0, "rescore")


def test_a_plan_is_a_rate_times_a_size_times_days():
    """Ten records of 1,000 bytes a second are 0.864 GB a day."""
    assert pytest.approx(0.864) == PLAN.day_gb
    assert pytest.approx(7 * 0.864) == PLAN.full_gb
    assert pytest.approx(3 * 0.864) == PLAN.held_gb(3)
    assert PLAN.full_gb == PLAN.held_gb(30)


@pytest.mark.parametrize(("days", "forgets"), [(6.9, False), (7.0, False), (7.1, True)])
def test_a_run_that_outlives_retention_forgets_its_beginning(days, forgets):
    """Only what something needs is worth a line."""
    assert forgets is PLAN.forgets(days)
    assert not TopicPlan("rl.dlq.v1", 1.0, 1.0, 7.0).forgets(days)


def test_a_topic_without_records_has_no_rate():
    """And a compacted one keeps its newest records for ever."""
    plan = plan_of(POLICIES, records=0, seconds=0.0, sizes=[])
    assert (0.0, 0.0, 0.0) == (plan.per_s, plan.record_bytes, plan.held_gb(5))


def test_what_is_needed_names_topics_of_the_table():
    """A topic that is renamed takes its line along."""
    assert NEEDED_FOR.keys() <= {row.name for row in TOPICS}


async def fill(bus, n=50, size=500):
    await ensure_topics(bus)
    appender = await KafkaAppender.connect(bus)
    for number in range(n):
        for row in (EPISODES, CONVERSATIONS):
            await appender.append(row.name, key=f"k{number:04}", value=b"x" * (size - 5))
    await appender.append(BATCHES.name, key="k0001", value=b"x" * 95)
    await appender.aclose()


@pytest.mark.broker
async def test_rates_are_those_of_the_log(bus):
    """Records in the window, over the time since the oldest of them; sizes of the newest."""
    await fill(bus)
    found = {each.topic: each for each in await plans(bus, now=time.time() + 100)}
    assert {EPISODES.name, CONVERSATIONS.name, BATCHES.name} == found.keys()
    assert pytest.approx(0.5, rel=0.2) == found[EPISODES.name].per_s
    assert (500, 100) == (found[EPISODES.name].record_bytes, found[BATCHES.name].record_bytes)
    assert [] == await plans(bus, window_s=10, now=time.time() + 100)


@pytest.mark.broker
def test_the_command_names_what_will_be_gone(bus, monkeypatch):
    """With the line that keeps it longer; a run of no steps has no length."""
    asyncio.run(fill(bus, 5))
    for name, value in kafka(bus).items():
        monkeypatch.setenv(name, value)
    said = CliRunner().invoke(main, ["topics", "plan", "--days", "10"], terminal_width=200)
    assert "rl.conversations.v1 keeps 7 days, and the run takes 10" in said.output
    assert f"retention.ms={11 * 24 * 3600 * 1000}" in said.output
    assert "rl.episodes.v1 keeps" not in said.output
    refused = CliRunner().invoke(main, ["topics", "plan", "--steps", "10"])
    assert "no step was made" in refused.output


@pytest.mark.broker
async def test_steps_are_counted_once_however_many_entries_they_make(bus):
    """Entries of other runs, and those without an optimizer step, are none."""
    await ensure_topics(bus)
    appender = await KafkaAppender.connect(bus)
    entries = [(1, True), (1, True), (2, False), (2, True), (3, True)]
    for number, optimized in entries:
        for run in ("main", "other")[: 1 + (number == 3)]:
            step = Step(run=run, incarnation=1, step=number, position=0, optimized=optimized)
            await appender.append(STEPS.name, key=run, value=codec.encode(step))
    await appender.aclose()
    assert pytest.approx(0.03, rel=0.2) == await steps_per_s(bus, now=time.time() + 100)
    assert 0.0 == await steps_per_s(bus, run="nobody")
