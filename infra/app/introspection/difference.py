"""Two reports of an agent against each other: another time, or another policy version. Pure."""

from collections.abc import Iterator

import msgspec
from msgspec import Struct

from odradek.infra.app.introspection.report import AgentReport, Distribution


class ReportFigure(Struct, frozen=True, kw_only=True):
    """A figure of a report, and the same one of another."""

    name: str
    value: float | None
    other: float | None = None
    unit: str = ""
    """`s`, `share`, `tokens`, or empty for a number."""


def figures(report: AgentReport, other: AgentReport | None = None) -> tuple[ReportFigure, ...]:
    """What can be held against each other, in the order of reading."""
    mine = list(_figures(report))
    theirs = {one.name: one.value for one in _figures(other)} if other is not None else {}
    names = {one.name for one in mine}
    added = [one for one in _figures(other) if one.name not in names] if other else []
    return tuple(msgspec.structs.replace(one, other=theirs.get(one.name)) for one in mine) + tuple(
        msgspec.structs.replace(one, value=None, other=one.value) for one in added
    )


def held_against(report: AgentReport, other: AgentReport) -> AgentReport:
    """The report, whose suggestions say whether the other one does without them."""
    known = {(one.kind, one.subject) for one in other.suggestions}
    return msgspec.structs.replace(
        report,
        suggestions=tuple(
            msgspec.structs.replace(one, fresh=(one.kind, one.subject) not in known)
            for one in report.suggestions
        ),
    )


def _figures(report: AgentReport) -> Iterator[ReportFigure]:
    samples = report.episodes - report.attempts
    yield _figure("episodes", report.episodes)
    yield _figure("success", report.success.value, "share")
    yield from _spread("reward", report.reward, "")
    for name, values in report.components.items():
        yield _figure(f"reward {name}, mean", values.mean)
    for name, n in report.outcomes.items():
        yield _figure(name, n / samples if samples else None, "share")
    yield from _spread("run", report.run_s, "s")
    yield _figure("model calls' share of the run", report.model_share, "share")
    yield from _spread("turns", report.turns, "")
    yield from _spread("call", report.call_s, "s")
    yield _figure("first token, median", report.ttft_s.p50, "s")
    errors = sum(row.n for row in report.call_errors)
    for name, n in (("calls with an error", errors), ("calls sent again", report.retried)):
        yield _figure(name, n / report.calls if report.calls else None, "share")
    lost = report.attempts / report.episodes if report.episodes else None
    yield _figure("attempts lost", lost, "share")
    yield from _spread("prompt tokens", report.prompt_tokens, "tokens")
    yield from _spread("completion tokens", report.completion_tokens, "tokens")
    yield _figure("prompt tokens cached", report.cached_share, "share")


def _figure(name: str, value: float | None, unit: str = "") -> ReportFigure:
    return ReportFigure(name=name, value=value, unit=unit)


def _spread(name: str, values: Distribution, unit: str) -> Iterator[ReportFigure]:
    yield _figure(f"{name}, median", values.p50, unit)
    yield _figure(f"{name}, 90th percentile", values.p90, unit)
