"""Traces cross topics in the traceparent header, and cost nothing while they are off."""

import subprocess
import sys

PROGRAM = """
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from odradek.infra.runtime import telemetry

with telemetry.span("off", parent="00-0-0-00") as parent:
    assert parent == "00-0-0-00", "a trace passes through a process that does not trace"
exporter = InMemorySpanExporter()
telemetry.setup("test", exporter)
with telemetry.span("one", task_id="t") as first:
    pass
with telemetry.span("two", parent=telemetry.parent_of((("traceparent", first.encode()),))):
    pass
one, two = exporter.get_finished_spans()
assert two.parent.span_id == one.context.span_id
assert two.context.trace_id == one.context.trace_id
assert one.attributes == {"odradek.task_id": "t"}
"""


def test_a_trace_goes_on_behind_a_record():
    """The span of a reader is a child of the span of the writer (in a process of its own)."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert "" == done.stderr
    assert 0 == done.returncode
