"""Figures of a benchmark as tables that people read."""

from collections.abc import Iterator
from typing import Any, Final

from rich.console import Console

from odradek.infra.app.tables import ReadableTable

COLUMNS: Final = (
    ("ms CPU a call, 32 in flight", "c32", "cpu_ms"),
    ("calls/s", "c32", "per_s"),
    ("p50 ms", "c32", "p50_ms"),
    ("p99 ms", "c32", "p99_ms"),
    ("ms CPU, one in flight", "c1", "cpu_ms"),
    ("p50 ms", "c1", "p50_ms"),
    ("p99 ms", "c1", "p99_ms"),
)
"""Of a target of HTTP load: heading, load, figure."""
OWN: Final = (("kB a call", "rss_kb_per_call"), ("lost on kill -9", "lost_on_kill"))
"""The same, of those that have it: heading, figure."""


def show(figures: dict[str, Any], console: Console, title: str = "") -> None:
    """Print all figures but the single repeats, targets of load and tables of parts first."""
    targets = {name: figure for name, figure in figures.items() if _is_target(figure)}
    if targets:
        console.print(_targets(targets, title))
        console.print()
    nested = {
        name: figure for name, figure in figures.items() if _is_map(figure) and name not in targets
    }
    rest: list[tuple[str, str]] = []
    for name, table in nested.items():
        if _is_matrix(table):
            console.print(_matrix(table, name))
            console.print()
        elif _has_targets(table):
            show(table, console, name)
    for name, value in _scalars(figures):
        rest.append((name, _cell(value)))
    if rest:
        console.print(ReadableTable(("", ""), rest, "" if targets else title))
        console.print()


def _is_map(value: Any) -> bool:
    return isinstance(value, dict) and bool(value)


def _is_target(value: Any) -> bool:
    return _is_map(value) and _is_map(value.get("c32")) and "cpu_ms" in value["c32"]


def _is_matrix(value: Any) -> bool:
    return _is_map(value) and all(map(_is_map, value.values())) and not _has_targets(value)


def _has_targets(value: dict[str, Any]) -> bool:
    return any(
        _is_target(child) or (_is_map(child) and _has_targets(child)) for child in value.values()
    )


def _targets(targets: dict[str, Any], title: str) -> ReadableTable:
    own = [
        (name, field) for name, field in OWN if any(field in target for target in targets.values())
    ]
    headings = ("", *(name for name, _, _ in COLUMNS), *(name for name, _ in own))
    rows = []
    for name, target in targets.items():
        loads = [_cell(target[load][field]) for _, load, field in COLUMNS]
        rows.append((name, *loads, *(_cell(target.get(field)) for _, field in own)))
    return ReadableTable(headings, rows, title)


def _matrix(columns: dict[str, dict[str, Any]], title: str) -> ReadableTable:
    names = dict.fromkeys(name for column in columns.values() for name in column)
    rows = [(name, *(_cell(column.get(name)) for column in columns.values())) for name in names]
    return ReadableTable(("", *columns), rows, title)


def _scalars(figures: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in figures.items():
        if isinstance(value, list) or _is_target(value) or _is_matrix(value):
            continue
        if not isinstance(value, dict):
            yield above + name, value
        elif not _has_targets(value):
            yield from _scalars(value, f"{above}{name}.")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
