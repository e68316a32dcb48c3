"""The tables of all metrics in the docs, made from the one table."""

from collections.abc import Iterable, Iterator
from typing import Final

from odradek.infra.runtime.metrics import SIGNALS, TRUST, Metric

SIGNALS_HEAD: Final = """\
## What processes do

"""
TRUST_HEAD: Final = """
## What should stay at rest

[Counters of trust](counters.md) say when each moves. Each that moves is a warning in the log, too.

"""


def page() -> str:
    """The tables of docs/metrics.md."""
    return "".join((SIGNALS_HEAD, *_table(SIGNALS), TRUST_HEAD, *_table(TRUST)))


def _table(metrics: Iterable[Metric]) -> Iterator[str]:
    yield "| metric | for Prometheus | kind, unit | attributes | process | what |\n"
    yield "|---|---|---|---|---|---|\n"
    for metric in metrics:
        attributes = ", ".join(f"`{name}`" for name in metric.attributes)
        kind = f"{metric.kind}, {metric.unit}" if metric.unit else metric.kind
        yield (
            f"| `{metric.name}` | `{metric.prometheus}` | {kind} | {attributes} "
            f"| {metric.of} | {metric.about} |\n"
        )
