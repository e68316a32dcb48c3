"""Prometheus' rule file, made from the table of alarms."""

import json
from collections.abc import Iterator

from odradek.infra.app.metrics.alarms import ALARMS, Alarm, Window


def rules(window: Window) -> str:
    """The rule file, in YAML.

    Args:
        window: Times of the run.
    """
    return "\n".join(_lines(window)) + "\n"


def _lines(window: Window) -> Iterator[str]:
    yield "# odradek alarms --prometheus"
    yield "groups:"
    yield "  - name: odradek"
    yield "    rules:"
    for alarm in ALARMS:
        yield from _rule(alarm, window)


def _rule(alarm: Alarm, window: Window) -> Iterator[str]:
    # A JSON string is one of YAML's, so nothing in it needs to be thought of.
    yield f"      - alert: {alarm.name}"
    yield f"        expr: {json.dumps(alarm.rule(window))}"
    if alarm.waits:
        yield f"        for: {window.wait}"
    yield f"        labels: {{severity: {alarm.severity}}}"
    yield "        annotations:"
    yield f"          summary: {json.dumps(alarm.about)}"
    yield f"          description: {json.dumps(alarm.advice)}"
