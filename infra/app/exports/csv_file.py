"""A table in a file: a line for each step, a column for each metric.

The file can be opened at any time, while a run goes on, too. Its columns are in the order in which
metrics first came; a cell is empty where a step did not have the metric.
"""

import csv
import io
import os
from collections.abc import Iterable
from typing import Final

from odradek.infra.app.exports.sink import SinkOptions, StepPoint

FIRST: Final = ["step", "time"]
"""Columns before those of metrics; the time is in Unix seconds."""


class CsvFile:
    """Writes `FOLDER/RUN.csv`."""

    def __init__(self, options: SinkOptions) -> None:
        self.path = options.folder / f"{options.file_name}.csv"
        self._columns, self._pending = [*FIRST], list[StepPoint]()

    def rewind(self, step: int) -> None:
        """See `MetricsSink`; a line that a crash cut off is taken away, too."""
        self._pending = [point for point in self._pending if point.step <= step]
        text = self._text()
        self._columns, rows = _parsed(text)
        kept = [row for row in rows if int(row["step"]) <= step]
        if (fresh := _written(self._columns, kept, heading=True)) != text:
            self._replace(fresh)

    def write(self, point: StepPoint) -> None:
        """See `MetricsSink`."""
        self._pending.append(point)

    def flush(self) -> None:
        """See `MetricsSink`."""
        if not self._pending:
            return
        rows = [_row(point) for point in self._pending]
        new = [name for name in dict.fromkeys(name for row in rows for name in row)
               if name not in self._columns]  # fmt: skip
        if new:
            self._columns += new
            self._replace(_written(self._columns, _parsed(self._text())[1] + rows, heading=True))
        else:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(_written(self._columns, rows, heading=False))
                file.flush()
                os.fsync(file.fileno())
        self._pending.clear()

    def close(self) -> None:
        """See `MetricsSink`; no file stays open between two flushes."""

    def _text(self) -> str:
        try:
            with self.path.open(encoding="utf-8", newline="") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def _replace(self, text: str) -> None:
        """Put a whole new file in place of the old one, which readers may have open."""
        fresh = self.path.with_suffix(".csv.new")
        with fresh.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)


def _parsed(text: str) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and whole lines of a file; `FIRST` and none of an empty one."""
    whole = text[: text.rfind("\n") + 1]
    lines = list(csv.reader(io.StringIO(whole)))
    if not lines:
        return [*FIRST], []
    columns, *cells = lines
    return columns, [dict(zip(columns, line, strict=True)) for line in cells]


def _written(columns: list[str], rows: Iterable[dict[str, str]], *, heading: bool) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    if heading:
        table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def _row(point: StepPoint) -> dict[str, str]:
    cells = {name: repr(value).removesuffix(".0") for name, value in point.metrics.items()}
    return cells | {"step": str(point.step), "time": f"{point.at:.3f}"}
