"""A report as sections: for a terminal, a page or the console. Pure."""

from collections.abc import Iterator
from datetime import UTC, datetime

from odradek.infra.app.history.sections import Facts, Grid, Heading, Note, Section
from odradek.infra.app.introspection.difference import ReportFigure, figures
from odradek.infra.app.introspection.report import AgentReport, Distribution, ErrorRow


def sections_of_report(report: AgentReport, other: AgentReport | None = None) -> Iterator[Section]:
    """What is drawn of a report.

    Args:
        report: How the agent plays.
        other: Another time, or another policy version, beside it.
    """
    yield Heading(f"agent {report.agent}: {_counted(report.episodes, 'episode')}")
    yield Facts(tuple(_about(report)))
    if other is not None:
        yield Note(f"against {_counted(other.episodes, 'episode')}, {_span(other)}")
    if report.without_turns:
        yield Note(
            f"the turns of {_counted(report.without_turns, 'episode')} are not on the log: times, "
            "calls, tokens and tools are of the others",
            wrong=True,
        )
    yield from _suggestions(report)
    yield Heading("in figures")
    yield _figures(figures(report, other), compared=other is not None)
    if report.errors:
        yield _errors("errors of episodes", report.errors)
    if report.call_errors:
        yield _errors("errors of calls", report.call_errors)
    if report.tools:
        yield _tools(report)
    if report.prompts:
        rows = tuple(
            (str(row.turn), str(row.episodes), _number(row.tokens.p50), _number(row.tokens.p90))
            for row in report.prompts
        )
        headings = ("turn", "episodes", "median", "90th percentile")
        yield Grid(headings, rows, "tokens of the prompt, over a conversation")


def _about(report: AgentReport) -> Iterator[tuple[str, str]]:
    success = report.success
    yield "time", _span(report)
    yield "tasks", str(report.tasks)
    if success.value is not None:
        of = f" of {success.component}" if success.component else ""
        share = f"{success.value:.1%} ({success.low:.1%} to {success.high:.1%}) of {success.of}"
        yield "success", f"{share} have a reward{of} of {success.threshold:g} or more"
    if report.versions:
        tokens = ", ".join(f"{version}: {n}" for version, n in report.versions.items())
        yield "tokens by policy version", tokens
    if report.finish_reasons:
        yield "calls ended by", _listed(report.finish_reasons)
    for name, n in (("clients that left", report.gone), ("side calls", report.beside)):
        if n:
            yield name, str(n)


def _suggestions(report: AgentReport) -> Iterator[Section]:
    if not report.suggestions:
        yield Note("no suggestion")
        return
    for one in report.suggestions:
        fresh = {None: "", True: " (new)", False: " (there, too)"}[one.fresh]
        yield Heading(f"{one.kind.replace('_', ' ')}{f' {one.subject}' if one.subject else ''}")
        yield Note(f"{one.text}; in {one.episodes} of {_counted(one.of, 'episode')}{fresh}")
        yield Note(one.advice)
        rows = tuple((seen.what, seen.at, "\n".join(seen.places)) for seen in one.evidence)
        yield Grid(("for example", "episode", "turns"), rows)


def _figures(listed: tuple[ReportFigure, ...], *, compared: bool) -> Grid:
    shown = [one for one in listed if one.value is not None or one.other is not None]
    if not compared:
        return Grid(("", ""), tuple((one.name, _figure(one.value, one.unit)) for one in shown))
    rows = tuple(
        (one.name, _figure(one.value, one.unit), _figure(one.other, one.unit), _change(one))
        for one in shown
    )
    return Grid(("", "here", "there", "change"), rows)


def _change(one: ReportFigure) -> str:
    if one.value is None or one.other is None:
        return ""
    if one.unit == "share":
        return f"{(one.value - one.other) * 100:+.1f} points"
    if not one.other:
        return f"{one.value - one.other:+.3g}"
    return f"{one.value / one.other - 1:+.0%}"


def _errors(title: str, errors: tuple[ErrorRow, ...]) -> Grid:
    rows = tuple((row.kind, str(row.n), "\n".join(row.places)) for row in errors)
    return Grid(("kind", "times", "such as"), rows, title)


def _tools(report: AgentReport) -> Grid:
    rows = tuple(
        (
            row.name,
            str(row.calls),
            str(row.episodes),
            str(row.failed),
            str(row.repeated),
            str(row.unanswered),
            _seconds(row.wait_s, "p50"),
            _seconds(row.wait_s, "p90"),
            _listed(row.failures),
        )
        for row in report.tools
    )
    headings = (
        "tool", "calls", "episodes", "failed", "failed again", "unanswered", "wait, median",
        "90th", "errors",
    )  # fmt: skip
    return Grid(headings, rows, "tools")


def _seconds(values: Distribution, name: str) -> str:
    value = getattr(values, name)
    return "-" if value is None else f"{value:.3g} s"


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    if unit == "share":
        return f"{value:.1%}"
    return f"{value:.3g} s" if unit == "s" else _number(value)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value == int(value) else f"{value:.4g}"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts.items())


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _span(report: AgentReport) -> str:
    since, until = (
        datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
        for at in (report.since, report.until)
    )
    return f"{since} to {until} UTC"
