"""The table of docs/a2a-conformance.md: what the conformance kit counted, by its own files."""

import sys
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from pathlib import Path

PAGE = Path(__file__).resolve().parents[3] / "docs/a2a-conformance.md"
BEGIN, END = "<!-- written by scripts/tck -->\n", "<!-- until here -->\n"
ROOT = "tests.compatibility."
OUTCOMES = ("passed", "failed", "skipped", "expected failures")


def outcome(case):
    """What came of a test case of a JUnit file, and why."""
    for child in case:
        if child.tag in {"failure", "error"}:
            return "failed", ""
        if child.tag == "skipped":
            expected = child.get("type") == "pytest.xfail"
            return "expected failures" if expected else "skipped", child.get("message", "")
    return "passed", ""


def file_of(case):
    """The kit's file of a test case: modules are lower case, classes are not."""
    parts = case.get("classname").removeprefix(ROOT).split(".")
    return "/".join(part for part in parts if part.islower()) + ".py"


def table(cases):
    """Markdown: a row a file, a row of sums, and the reasons of what was skipped or failed."""
    counts, reasons, failed = defaultdict(Counter), Counter(), []
    for case in cases:
        kind, why = outcome(case)
        counts[file_of(case)][kind] += 1
        if kind == "skipped":
            reasons[why.partition(";")[0]] += 1
        if kind in {"failed", "expected failures"}:
            failed.append(f"* {kind.removesuffix('s')}: `{case.get('name')}`")
    rows = [(f"`{file}`", counts[file]) for file in sorted(counts)]
    rows.append(("**all**", sum(counts.values(), Counter())))
    lines = [f"| file | {' | '.join(OUTCOMES)} |", "|---" * (len(OUTCOMES) + 1) + "|"]
    lines += [
        f"| {name} | {' | '.join(str(row[kind]) for kind in OUTCOMES)} |" for name, row in rows
    ]
    lines += ["", *sorted(failed), "", "| skipped because | cases |", "|---|---|"]
    lines += [f"| {why} | {count} |" for why, count in sorted(reasons.items())]
    return "\n".join(lines) + "\n"


def written(page, text, begin=BEGIN):
    """A page with a text between its marks."""
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(END)
    return f"{before}{begin}\n{text}\n{END}{after}"


def main():
    results = ET.parse(sys.argv[1])
    PAGE.write_text(written(PAGE.read_text(), table(results.iter("testcase"))))


if __name__ == "__main__":
    main()
