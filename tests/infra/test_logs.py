"""Logs for programs: one JSON object a line, with what it is about; repeats are sampled."""

import json
import logging
import os
import subprocess
import sys

import pytest

from odradek.infra.runtime import logs

PARENT = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
PROGRAM = f"""
import logging
from odradek.infra.runtime import logs, telemetry
logs.configure("info", "json")
log = logging.getLogger("odradek")
log.info("ready: %s", "proxy")
with telemetry.span("proxy.turn", parent="{PARENT}", episode_id="e1"):
    log.warning("a turn")
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
telemetry.setup("test", InMemorySpanExporter())
with telemetry.span("agent.run", parent="{PARENT}", episode_id="e2"):
    try:
        raise ValueError("no")
    except ValueError:
        log.exception("it failed")
"""


@pytest.fixture(scope="module")
def lines():
    """What a process writes: without a span, with one that nobody exports, with one that is."""
    env = {**os.environ, "OTEL_METRICS_EXPORTER": "none"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env=env
    )
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_each_line_is_one_object(lines):
    """An exception's traceback, too."""
    assert ["ready: proxy", "a turn", "it failed"] == [line["message"] for line in lines]
    assert ["info", "warning", "error"] == [line["level"] for line in lines]
    assert "ValueError: no" in lines[2]["exception"]


def test_a_line_within_a_span_has_its_ids(lines):
    """Its trace's as well, whether or not spans are exported."""
    assert "trace_id" not in lines[0]
    assert ["e1", "e2"] == [line["episode_id"] for line in lines[1:]]
    assert {"a" * 32} == {line["trace_id"] for line in lines[1:]}
    assert "b" * 16 == lines[1]["span_id"] != lines[2]["span_id"]


def record(text, *values):
    return logging.LogRecord("odradek", logging.INFO, "x.py", 1, text, values, None)


def test_a_line_that_repeats_is_sampled_and_says_how_often_it_came():
    """Others pass meanwhile, from the same place as well."""
    now = [0.0]
    sampler = logs.RepeatSampler(clock=lambda: now[0])
    assert logs.MANY == sum(sampler.filter(record("again %d", 1)) for _ in range(100))
    assert sampler.filter(record("again %d", 2))
    now[0] = logs.WINDOW_S
    later = record("again %d", 1)
    assert sampler.filter(later)
    assert "again 1 (and 95 times before)" == later.getMessage()


def test_a_sampler_forgets_what_is_long_past():
    """However many different lines a process writes in its life."""
    now = [0.0]
    sampler = logs.RepeatSampler(clock=lambda: now[0])
    for at in range(3 * logs.REMEMBERED):
        now[0] = at / 100
        assert sampler.filter(record("line %d", at))
    assert len(sampler._lines) <= logs.REMEMBERED + 1


@pytest.mark.parametrize(
    ("line", "expected"),
    [('{"message": "the cause"}', "the cause"), ("{broken", "{broken"), ("plain", "plain")],
)
def test_a_supervisor_shows_what_a_last_line_says(line, expected):
    """In either form."""
    assert expected == logs.message(line)
