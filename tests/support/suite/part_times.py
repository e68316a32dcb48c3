"""How long each part of the suite took, beside the budget that CONTRIBUTING.md gives it."""

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
LAST_RUN = ROOT / "docs/figures/suite.json"
"""What `scripts/test --write` took the last time."""
ROW = re.compile(r"^\| ([^|]+?) \| `([^|]+)` \| (\d+) s \|$", re.MULTILINE)


def budgets() -> dict[str, tuple[tuple[str, ...], int]]:
    """Part -> its folders or files below `tests/`, and how many seconds they may take in all."""
    page = (ROOT / "CONTRIBUTING.md").read_text()
    return {
        part: (tuple(paths.split("` `")), int(seconds))
        for part, paths, seconds in ROW.findall(page)
    }


def part_of(nodeid: str) -> str:
    """The part that a test belongs to, "" if the table has none: the longest path that fits."""
    fitting = [
        (len(path), part)
        for part, (paths, _) in budgets().items()
        for path in paths
        if nodeid.startswith(f"tests/{path}")
    ]
    return max(fitting)[1] if fitting else ""


class PartTimes:
    """A plugin that adds up the seconds of all tests of a part, set-up and tear-down included."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._by_part: dict[str, float] = defaultdict(float)
        self._part_of: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count one phase of one test; with xdist this is called where all of them report to."""
        path = report.nodeid.partition("::")[0]
        if path not in self._part_of:
            self._part_of[path] = part_of(path)
        self._by_part[self._part_of[path]] += report.duration

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the table and, if asked, write it."""
        write = terminalreporter.write_line
        write(f"{'part':32}{'budget':>8}{'took':>8}  (seconds of all processes together)")
        for part, (_, budget) in budgets().items():
            took = self._by_part.get(part, 0.0)
            write(f"{part:32}{budget:8}{took:8.0f}{'  over its budget' if took > budget else ''}")
        if self._file is not None:
            figures = {part: round(took, 1) for part, took in sorted(self._by_part.items())}
            self._file.write_text(json.dumps(figures, indent=1) + "\n")
