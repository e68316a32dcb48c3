"""`odradek metrics`: every metric that a process may have."""

import click

from odradek.infra.app.metrics import page
from odradek.infra.runtime.metrics import METRICS


@click.command()
@click.option("--reference", is_flag=True, help="Print the tables of docs/metrics.md.")
def command(reference: bool) -> None:
    """List the metrics of all processes, and their names for Prometheus.

    \b
    OTEL_METRICS_EXPORTER=prometheus odradek up    # a page for each process, on loopback
    OTEL_METRICS_EXPORTER=otlp odradek up          # to OTEL_EXPORTER_OTLP_ENDPOINT
    OTEL_METRICS_EXPORTER=prometheus,otlp odradek up
    """  # noqa: D301 - \b is click's sign for "do not wrap"
    if reference:
        click.echo(page(), nl=False)
        return
    from rich.console import Console

    from odradek.infra.app.tables import ReadableTable

    cells = [(each.prometheus, each.kind, each.of, each.about) for each in METRICS]
    Console().print(ReadableTable(("for Prometheus", "kind", "process", "what"), cells))
