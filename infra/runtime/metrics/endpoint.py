"""A page for Prometheus: one per process, on loopback unless `OTEL_EXPORTER_PROMETHEUS_HOST` says.

OpenTelemetry's own reader and Prometheus' own server make it. What is ours is the port: several
processes on one machine want one each, and take the next that is free.
"""

import errno
import logging
import os
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from prometheus_client import CollectorRegistry, start_http_server

from odradek.infra.errors import EndpointRefused

log = logging.getLogger("odradek")

HOST: Final = "OTEL_EXPORTER_PROMETHEUS_HOST"
PORT: Final = "OTEL_EXPORTER_PROMETHEUS_PORT"
FIRST: Final = 9464
"""OpenTelemetry's default."""
TRIES: Final = 100
"""How many ports from the first on are tried."""
LAST: Final = 65_535


_served: Final[list[int]] = []


def served_port() -> int:
    """The port of this process' page, 0 while it serves none."""
    return _served[-1] if _served else 0


def serve(environ: Mapping[str, str] = os.environ) -> PrometheusMetricReader:
    """Begin to serve, and say where; returns what the meter provider reads by.

    Raises EndpointRefused: a variable holds no port, the host is none of ours, or all ports are
    taken.
    """
    host, first = environ.get(HOST) or "127.0.0.1", _port(environ.get(PORT) or str(FIRST))
    registry = CollectorRegistry()
    reader = PrometheusMetricReader(scope_info_enabled=False, registry=registry)
    port = _bound(host, first, registry)
    _served.append(port)
    log.info("metrics: http://%s:%d/metrics", host, port)
    return reader


def _port(text: str) -> int:
    if not text.isdigit() or not 0 <= int(text) <= LAST:
        raise EndpointRefused(f"{PORT} holds {text!r}: a port is a number up to {LAST}")
    return int(text)


def _bound(host: str, first: int, registry: CollectorRegistry) -> int:
    """Serve on the first port that is free. 0 is any."""
    for port in range(first, min(first + TRIES, LAST + 1) if first else 1):
        try:
            server: Any = start_http_server(port, addr=host, registry=registry)[0]
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise EndpointRefused(
                    f"metrics cannot be served at {host}:{port}: {error.strerror or error}; "
                    f"see {HOST} and {PORT}"
                ) from error
            continue
        return int(server.server_port)
    raise EndpointRefused(f"all {TRIES} ports from {first} on are taken: set {PORT} to a free one")
