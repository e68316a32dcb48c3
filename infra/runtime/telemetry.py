"""Traces and metrics by opentelemetry-sdk, set up by the standard OTEL variables.

With no `OTEL_EXPORTER_OTLP_ENDPOINT` (or `OTEL_TRACES_EXPORTER`, `OTEL_METRICS_EXPORTER`) nothing
is exported and no span is recorded, so a run without a collector pays next to nothing. Across
topics the context travels as the W3C `traceparent` header. What is counted stands in `metrics`.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Final

from opentelemetry import context, metrics, propagate, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    ConsoleMetricExporter,
    MetricReader,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SimpleSpanProcessor,
    SpanExporter,
)

from odradek.infra.errors import EndpointRefused
from odradek.infra.runtime import logs
from odradek.infra.runtime import metrics as trust
from odradek.schemas.codec import header

_state: dict[str, Any] = {"on": False}
_FILE: Final = "ODRADEK_TRACE_FILE"


def setup(process: str, exporter: SpanExporter | None = None) -> None:
    """Make this process trace and export its metrics, if the OTEL variables ask for it.

    Args:
        process: Names the service.
        exporter: Of spans, where a test wants to see them.
    """
    resource = Resource.create({"service.name": f"odradek-{process}"})
    _metrics(resource)
    _traces(resource, exporter)


def _metrics(resource: Resource) -> None:
    readers = list(_readers())
    if readers:
        metrics.set_meter_provider(MeterProvider(readers, resource=resource))
        trust.export()


def metric_exporters(environ: Mapping[str, str], default: str = "") -> list[str]:
    """What `OTEL_METRICS_EXPORTER` names, with commas; a default where it is not set."""
    words = (environ.get("OTEL_METRICS_EXPORTER") or default).split(",")
    return [word.strip() for word in words if word.strip()]


def _readers() -> Iterator[MetricReader]:
    """By whom metrics leave the process: `OTEL_METRICS_EXPORTER` names several, with commas.

    Raises EndpointRefused for what is none of them, and where no page can be served.
    """
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get(
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"
    )
    for kind in metric_exporters(os.environ, "otlp" if endpoint else ""):
        match kind:
            case "console":
                yield PeriodicExportingMetricReader(ConsoleMetricExporter(out=sys.stderr))
            case "otlp":
                from opentelemetry.exporter.otlp.proto.http.metric_exporter import (
                    OTLPMetricExporter,
                )

                yield PeriodicExportingMetricReader(OTLPMetricExporter())
            case "prometheus":
                from odradek.infra.runtime.metrics.endpoint import serve

                yield serve()
            case "none":
                pass
            case _:
                raise EndpointRefused(
                    f"OTEL_METRICS_EXPORTER holds {kind!r}: write otlp, prometheus, console or "
                    "none, or several with commas"
                )


def _traces(resource: Resource, exporter: SpanExporter | None) -> None:
    kind = os.environ.get("OTEL_TRACES_EXPORTER", "")
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get(
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
    )
    if exporter is None and kind == "none":
        return
    processor: Any = None
    if exporter is not None:
        processor = SimpleSpanProcessor(exporter)
    elif path := os.environ.get(_FILE):
        out = Path(path).open("a", encoding="utf-8")  # noqa: SIM115 - lives as long as the process
        processor = SimpleSpanProcessor(
            ConsoleSpanExporter(out=out, formatter=lambda span: span.to_json(indent=None) + "\n")
        )
    elif kind == "console":
        processor = BatchSpanProcessor(ConsoleSpanExporter())
    elif endpoint or kind == "otlp":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        processor = BatchSpanProcessor(OTLPSpanExporter())
    if processor is None:
        return
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(processor)
    trace.set_tracer_provider(provider)
    _state["on"] = True


def shutdown() -> None:
    """Send pending spans and counts, and report counts that were not reported yet."""
    trust.flush()
    for provider in (trace.get_tracer_provider(), metrics.get_meter_provider()):
        if isinstance(provider, TracerProvider | MeterProvider):
            provider.shutdown()


def enabled() -> bool:
    """Whether spans are recorded."""
    return bool(_state["on"])


def span(
    name: str, *, parent: str | None = None, **attributes: Any
) -> AbstractContextManager[str | None]:
    """A span around a block; yields the traceparent to hand on (None while tracing is off).

    Args:
        name: What is done, such as `proxy.turn`.
        parent: The traceparent of what caused this, from a record's or request's header.
        attributes: Ids and counts; never content and never secrets.
    """
    if _state["on"]:
        return _recorded(name, parent, attributes)
    return _passed(parent, attributes) if logs.wants_context() else nullcontext(parent)


@contextmanager
def _passed(parent: str | None, attributes: Mapping[str, Any]) -> Iterator[str | None]:
    """A block without a span, whose log lines say what it is about."""
    with logs.about(parent, attributes):
        yield parent


@contextmanager
def _recorded(name: str, parent: str | None, attributes: Mapping[str, Any]) -> Iterator[str | None]:
    above = propagate.extract({"traceparent": parent}) if parent else context.get_current()
    tracer = trace.get_tracer("odradek")
    with (
        tracer.start_as_current_span(
            name,
            context=above,
            attributes={f"odradek.{key}": value for key, value in attributes.items()},
            # An exception's text may quote what an agent said: a span tells its type and no more.
            record_exception=False,
            set_status_on_exception=False,
        ) as span,
        ExitStack() as ending,
        logs.about(None, attributes) if logs.wants_context() else nullcontext(),
    ):
        ending.push(partial(_mark, span))
        yield current()


def _mark(span: trace.Span, kind: type[BaseException] | None, *_: object) -> None:
    """Say in a span that its block ended badly; a cancelled call did, too."""
    if kind is not None:
        span.set_status(trace.Status(trace.StatusCode.ERROR, kind.__name__))


def current() -> str | None:
    """The traceparent of the span in force."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get("traceparent")


def parent_of(headers: Any) -> str | None:
    """The traceparent in a record's headers."""
    return header(headers, "traceparent")
