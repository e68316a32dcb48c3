"""Counters of trust are documented, each moves, and a flood of moves is one line."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from odradek.infra.bus import MemoryAppender, Record, RecordAddress, letter, passed_over
from odradek.infra.runtime import metrics
from odradek.infra.runtime.metrics import CounterBoard, CounterTotals
from odradek.schemas import codec
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import Outcome, Refusal, Step
from odradek.schemas.topics import EPISODES, TURNS
from odradek.streams.drivers.memory import MemoryDriver
from odradek.streams.stages.assembler import ASSEMBLE
from odradek.streams.stages.grouper import GROUP
from tests.support.schemas.event_builders import (
    aborted,
    episode,
    expected,
    opened,
    reward,
    sealed,
    turn,
)

ROOT = Path(__file__).parents[2]


def test_every_counter_is_documented():
    """By name, in the page of guarantees."""
    text = (ROOT / "docs" / "counters.md").read_text()
    assert [] == [metric.name for metric in metrics.TRUST if f"`{metric.name}`" not in text]


def test_the_page_names_no_counter_that_is_not_there():
    """What stands there can be watched."""
    import re

    text = (ROOT / "docs" / "counters.md").read_text()
    named = set(re.findall(r"`(odradek\.[a-z_]+(?:\.[a-z_]+)?)`", text))
    assert set() == named - {metric.name for metric in metrics.TRUST}


async def folded(stage, topic, *told):
    """Fold events; a number moves the clock."""
    log = MemoryAppender(1)
    driver = MemoryDriver(log, stage)
    for one in told:
        if isinstance(one, int):
            driver.now = one
            await driver.step()  # appends a Tick where one is due
        else:
            key = one.task_id if topic is EPISODES else one.episode_id
            await log.append(topic.name, key=key, value=codec.encode(one), partition=0)
        await driver.step()


async def gap():
    await folded(ASSEMBLE, TURNS, opened(), turn(), sealed(n=2))


async def late_run():
    await folded(ASSEMBLE, TURNS, opened(), 1000)


async def late_group():
    await folded(GROUP, EPISODES, expected(), episode(), 1000)


async def no_state():
    await folded(ASSEMBLE, TURNS, turn("ghost"))


async def twice():
    await folded(ASSEMBLE, TURNS, opened(), turn(), turn(), aborted(reason=Outcome.CANCELLED))


async def dead():
    letter(Record("rl.tasks.v1", 0, 0, "k", b"{"), "not_json")


async def unread():
    passed_over(Record("rl.steps.v1", 0, 0, "k", b"{"), InvalidRecord("not_json"))


async def refused_as(reason):
    pytest.importorskip("torch")
    from odradek.trainer.commit.announcer_kafka import KafkaAnnouncer

    class Thread:
        def call(self, coroutine):
            coroutine.close()
            return RecordAddress("rl.steps.v1", 0, 0)

    class Appender:
        async def append(self, *_, **__):
            pass

    announcer = object.__new__(KafkaAnnouncer)
    announcer._thread, announcer._appender, announcer._last = Thread(), Appender(), -1
    refused = (Refusal(offset=1, reason=reason), Refusal(offset=2, reason="zero_variance"))
    announcer.step(Step(run="r", incarnation=1, step=1, position=3, refused=refused))


async def stale():
    await refused_as("stale")


async def far():
    await refused_as("logprobs")


async def endless():
    await refused_as("advantage")


@pytest.mark.parametrize(
    ("metric", "scene"),
    [
        (metrics.CAPTURE_GAPS, gap),
        (metrics.EXPIRED, late_run),
        (metrics.EXPIRED, late_group),
        (metrics.UNMATCHED, no_state),
        (metrics.DEAD_LETTERS, dead),
        (metrics.DUPLICATES, twice),
        (metrics.SKIPPED, unread),
        (metrics.STALE, stale),
        (metrics.UNUSABLE, far),
        (metrics.UNUSABLE, endless),
    ],
    ids=lambda one: getattr(one, "name", getattr(one, "__name__", "")),
)
async def test_each_counter_moves(metric, scene):
    """By one, in the smallest story that shall move it."""
    before = metrics.total(metric)
    await scene()
    assert 1 == metrics.total(metric) - before


async def test_a_good_story_moves_nothing():
    """Rest is what they show while all is well."""
    before = [metrics.total(metric) for metric in metrics.TRUST]
    await folded(ASSEMBLE, TURNS, opened(), turn(), reward(), sealed())
    assert before == [metrics.total(metric) for metric in metrics.TRUST]


def test_a_flood_is_one_line_in_ten_seconds_with_the_total(caplog):
    """The line says what moved, how much, and what to do."""
    now = [0.0]
    board = CounterBoard(clock=lambda: now[0])
    with caplog.at_level(logging.WARNING):
        for _ in range(1000):
            board.moved(metrics.DEAD_LETTERS, topic="rl.turns.v1", reason="not_json")
        assert 1 == len(caplog.messages)
        now[0] = 10.0
        board.tell(metrics.DEAD_LETTERS.name)
    first, second = caplog.messages
    assert "1 more, 1 in all (rl.turns.v1 not_json 1)" in first
    assert "999 more, 1000 in all" in second
    assert "odradek dlq list" in second


def test_a_tally_at_rest_says_nothing():
    """A line is only due when something has moved since the last."""
    tally = CounterTotals(metrics.STALE)
    assert "" == tally.line(0.0)
    assert 0.0 == tally.add(2, (), 0.0)
    assert tally.line(0.0).startswith("odradek.rows.stale: 2 more, 2 in all: rows refused")
    assert "" == tally.line(5.0)
    assert 4.0 == tally.add(1, (), 6.0)


PROGRAM = """
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from odradek.infra.runtime import metrics as counters
reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))
counters.moved(counters.DEAD_LETTERS, 3, topic="t", reason="not_json")
(found,) = [m for r in reader.get_metrics_data().resource_metrics
            for s in r.scope_metrics for m in s.metrics]
(point,) = found.data.data_points
print(found.name, point.value, dict(point.attributes))
"""


def test_counters_reach_opentelemetry():
    """Under their names, with the words that tell them apart (in a process of its own)."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert "odradek.dead_letters 3 {'topic': 't', 'reason': 'not_json'}" == done.stdout.strip()


EXPORT = """
from odradek.infra.runtime import metrics as counters
from odradek.infra.runtime import telemetry
telemetry.setup("test")
counters.moved(counters.STALE, 2)
telemetry.shutdown()
"""


@pytest.mark.parametrize(("told", "kind"), [(True, "console"), (False, "none"), (False, "")])
def test_the_standard_variable_says_whether_counters_are_exported(told, kind):
    """By default nothing leaves the process."""
    import os

    env = {**os.environ, "OTEL_METRICS_EXPORTER": kind, "OTEL_TRACES_EXPORTER": "none"}
    done = subprocess.run(
        [sys.executable, "-c", EXPORT], capture_output=True, text=True, env=env, check=True
    )
    assert told == ('"name": "odradek.rows.stale"' in done.stderr)
