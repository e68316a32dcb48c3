"""Metrics: one table, the docs and the conventions agree with it, and both ways out carry it."""

import importlib
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from odradek.infra.app.metrics import page
from odradek.infra.app.session import targets
from odradek.infra.app.supervisor import Spec
from odradek.infra.bus import MemoryAppender
from odradek.infra.errors import EndpointRefused
from odradek.infra.runtime import metrics
from odradek.infra.runtime.metrics import endpoint, signals
from odradek.schemas import codec
from odradek.schemas.topics import TURNS
from odradek.streams.drivers.memory import MemoryDriver
from odradek.streams.stages.assembler import ASSEMBLE
from tests.support.schemas.event_builders import opened, reward, sealed, turn

ROOT = Path(__file__).parents[2]
CONVENTIONS = {
    "gen_ai": "gen_ai_metrics",
    "messaging": "messaging_metrics",
    "process": "process_metrics",
}


def test_the_docs_hold_the_table():
    """`odradek metrics --reference` prints the end of docs/metrics.md."""
    assert (ROOT / "docs" / "metrics.md").read_text().endswith(page())


def test_each_metric_has_one_row_and_one_name_for_prometheus():
    """A name that stands twice would be two meanings of one number."""
    names = [metric.name for metric in metrics.METRICS]
    assert len(names) == len(set(names)) == len({each.prometheus for each in metrics.METRICS})


@pytest.mark.parametrize(
    "metric", [each for each in metrics.METRICS if each.name.split(".")[0] in CONVENTIONS],
    ids=lambda metric: metric.name,
)  # fmt: skip
def test_a_name_of_the_conventions_is_there_with_its_unit(metric):
    """As OpenTelemetry's own package of conventions has it, or the agents' newest page."""
    module = importlib.import_module(
        f"opentelemetry.semconv._incubating.metrics.{CONVENTIONS[metric.name.split('.')[0]]}"
    )
    named = {value for name, value in vars(module).items() if name.isupper()}
    newer = {"gen_ai.invoke_agent.duration"}
    assert metric.name in named | newer


async def test_a_story_is_counted_where_it_passes():
    """The records that the assembler reads, and the episode that it writes."""
    before = (
        signals.total(metrics.EPISODES, "completed"),
        signals.total(metrics.CONSUMED, TURNS.name, "assemble"),
    )
    log = MemoryAppender(1)
    driver = MemoryDriver(log, ASSEMBLE)
    for event in (opened(), turn(), reward(), sealed()):
        await log.append(TURNS.name, key=event.episode_id, value=codec.encode(event), partition=0)
        await driver.step()
    assert (before[0] + 1, before[1] + 4) == (
        signals.total(metrics.EPISODES, "completed"),
        signals.total(metrics.CONSUMED, TURNS.name, "assemble"),
    )


def test_a_histogram_that_nobody_exports_takes_nothing(monkeypatch):
    """And one that is exported names its attributes; an empty one is left out."""
    taken = []

    class Exported:
        def record(self, value, attributes):
            taken.append((value, attributes))

    metrics.record(metrics.CALL_S, 1.0, "chat", "")
    monkeypatch.setitem(signals._histograms, metrics.CALL_S.name, Exported())
    metrics.record(metrics.CALL_S, 2.0, "chat", "")
    assert [(2.0, {"gen_ai.operation.name": "chat"})] == taken


PROGRAM = """
import urllib.request
from odradek.infra.runtime import metrics, telemetry
from odradek.infra.runtime.metrics.endpoint import served_port
telemetry.setup("test")
for metric in metrics.METRICS:
    values = ["x"] * len(metric.attributes)
    if metric in metrics.TRUST:
        metrics.moved(metric, 1, **dict(zip(metric.attributes, values)))
    elif metric.kind == "counter":
        metrics.count(metric, 1, *values)
    elif metric.kind == "histogram":
        metrics.record(metric, 1.0, *values)
    elif not metric.name.startswith("process.uptime") and metric is not metrics.MEMORY:
        metrics.gauge(metric, lambda values=tuple(values): [(1, values)])
with urllib.request.urlopen(f"http://127.0.0.1:{served_port()}/metrics") as page:
    print(page.read().decode())
telemetry.shutdown()
"""


class Collector(BaseHTTPRequestHandler):
    """Takes what a process sends by OTLP over HTTP."""

    got: list[bytes] = []

    def do_POST(self):
        self.got.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def exported():
    """What one process serves to Prometheus, and sends by OTLP, with two settings."""
    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        env = {
            **os.environ,
            "OTEL_METRICS_EXPORTER": "prometheus, otlp",
            "OTEL_EXPORTER_PROMETHEUS_PORT": "0",
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        }
        try:
            done = subprocess.run(
                [sys.executable, "-c", PROGRAM],
                capture_output=True,
                text=True,
                env=env,
                check=False,
            )
        finally:
            server.shutdown()
    assert 0 == done.returncode, done.stderr
    return done.stdout, Collector.got


def test_prometheus_gets_every_metric_under_the_name_of_the_table(exported):
    """From a page on loopback."""
    text, _ = exported
    kinds = dict(line.split()[2:4] for line in text.splitlines() if line.startswith("# TYPE"))
    wanted = {each.prometheus: each.kind for each in metrics.METRICS}
    assert wanted == {name: kinds.get(name) for name in wanted}


def test_a_collector_gets_every_metric_with_its_unit(exported):
    """By OTLP, from the same process."""
    found = {}
    for body in exported[1]:
        for of in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            found |= {each.name: each.unit for scope in of.scope_metrics for each in scope.metrics}
    wanted = {each.name: each.unit for each in metrics.METRICS}
    assert wanted == {name: found.get(name) for name in wanted}


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({endpoint.PORT: "x"}, "'x'"),
        ({endpoint.PORT: "70000"}, "70000"),
        ({endpoint.HOST: "192.0.2.1", endpoint.PORT: "0"}, "192.0.2.1:0"),
    ],
)
def test_a_page_that_cannot_be_served_is_refused(variables, named):
    """The error names the variable and what is wrong."""
    with pytest.raises(EndpointRefused, match="OTEL_EXPORTER_PROMETHEUS_PORT") as refused:
        endpoint.serve(variables)
    assert named in str(refused.value)


def test_a_port_that_is_taken_is_passed_over():
    """Several processes on one machine have a page each."""
    with HTTPServer(("127.0.0.1", 0), Collector) as taken:
        endpoint.serve({endpoint.PORT: str(taken.server_port)})
        assert taken.server_port < endpoint.served_port() <= taken.server_port + endpoint.TRIES


@pytest.mark.parametrize(
    ("value", "expected"),
    [("prometheus", True), ("otlp, prometheus", True), ("otlp", False), ("", False)],
)
def test_a_project_lists_its_pages_where_prometheus_is_asked_for(value, expected, tmp_path):
    """Each with the name of its process."""
    assert expected == targets.wanted({"OTEL_METRICS_EXPORTER": value})
    specs = targets.with_ports([Spec(name="proxy", command=("x",))], lambda: 7)
    targets.write(tmp_path, specs, 6)
    assert '"service": "proxy"' in (tmp_path / targets.FILE).read_text()
    assert [
        {"targets": ["127.0.0.1:6"], "labels": {"service": "up"}},
        {"targets": ["127.0.0.1:7"], "labels": {"service": "proxy"}},
    ] == targets.targets({"up": 6, "proxy": 7})
