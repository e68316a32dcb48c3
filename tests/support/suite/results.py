"""A file of results, a JSON line each, that a proof adds to at once and goes on behind."""

import json
import os
from pathlib import Path
from typing import Any

Result = dict[str, Any]


def read(path: Path) -> list[Result]:
    """The results so far; a last line that a kill cut off is none."""
    if not path.exists():
        return []
    whole = path.read_text().rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines() if line]


def append(path: Path, result: Result) -> None:
    """Add a result, durably: once this returns, no rerun repeats it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        # What a kill cut off goes: the next line must not begin in its middle.
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.write(json.dumps(result).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
