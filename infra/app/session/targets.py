"""Where Prometheus finds the processes of a project: a file of targets that it reads often.

Each process serves a page of its own where `OTEL_METRICS_EXPORTER` names prometheus. The file is
for `file_sd_configs`, and gives each page the name of its process.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from odradek.infra.app.supervisor import Spec
from odradek.infra.runtime.telemetry import metric_exporters

FILE: Final = "prometheus.json"
"""In the project's work folder."""
OWN: Final = "up"
"""What the process is called that starts the others."""
PORT: Final = "OTEL_EXPORTER_PROMETHEUS_PORT"
HOST: Final = "OTEL_EXPORTER_PROMETHEUS_HOST"


def wanted(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether processes are to serve pages for Prometheus."""
    return "prometheus" in metric_exporters(environ)


def with_ports(specs: Iterable[Spec], free: Callable[[], int]) -> list[Spec]:
    """The same processes, each with a port for its page."""
    return [replace(spec, env={**spec.env, PORT: str(free())}) for spec in specs]


def targets(pages: Mapping[str, int], host: str = "127.0.0.1") -> list[dict[str, Any]]:
    """What the file holds: a page for each process, by its name."""
    return [
        {"targets": [f"{host}:{port}"], "labels": {"service": name}} for name, port in pages.items()
    ]


def write(folder: Path, specs: Iterable[Spec], own: int) -> None:
    """Write the file, whole or not at all.

    Args:
        folder: The project's work folder.
        specs: The processes, with their ports.
        own: The port of the process that starts them.
    """
    pages = {OWN: own, **{spec.name: int(spec.env[PORT]) for spec in specs}}
    path = folder / FILE
    draft = path.with_suffix(".tmp")
    host = os.environ.get(HOST) or "127.0.0.1"
    draft.write_text(json.dumps(targets(pages, host), indent=1), encoding="utf-8")
    draft.replace(path)
