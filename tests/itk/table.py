"""The table of docs/a2a-conformance.md: over which transports each pair of agents understood each other."""

import json
import sys
from pathlib import Path

from tests.support.agents.conformance_table import PAGE, written

from .kit import TRANSPORTS, WAYS

BEGIN = "<!-- written by scripts/itk -->\n"
NAMES = {"jsonrpc": "JSON-RPC", "http_json": "REST", "grpc": "gRPC"}


def cell(results, row, way):
    """What came of one way to speak, over each transport that was tried."""
    passed = {kind: good for name, kind, how, good, _ in results if (name, how) == (row, way)}
    failed = [NAMES[kind] for kind in TRANSPORTS if not passed.get(kind, True)]
    good = [NAMES[kind] for kind in TRANSPORTS if passed.get(kind)]
    return "; ".join(filter(None, [", ".join(good), failed and f"**not** {', '.join(failed)}"]))


def table(results):
    """Markdown: a row for each agent, a column for each way to speak."""
    lines = [f"| with | {' | '.join(WAYS)} |", "|---" * (len(WAYS) + 1) + "|"]
    for row in dict.fromkeys(name for name, *_ in results):
        lines.append(f"| `{row}` | {' | '.join(cell(results, row, way) for way in WAYS)} |")
    passed = sum(good for *_, good, _ in results)
    return "\n".join([*lines, "", f"{passed} of {len(results)} scenarios passed."]) + "\n"


def main():
    results = json.loads(Path(sys.argv[1]).read_text())
    PAGE.write_text(written(PAGE.read_text(), table(results), begin=BEGIN))


if __name__ == "__main__":
    main()
