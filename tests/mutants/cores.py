"""Which files are a core, and which tests are its own."""

import tomllib
from pathlib import Path
from typing import NamedTuple

TABLE = Path(__file__).with_name("cores.toml")


class Core(NamedTuple):
    """A pure core of the product."""

    name: str
    files: tuple[str, ...]
    """Paths from the repository's root."""
    tests: tuple[str, ...]


def cores(table: Path = TABLE) -> dict[str, Core]:
    """All cores of a table, by name."""
    rows = tomllib.loads(table.read_text())
    return {
        name: Core(name, tuple(row["files"]), tuple(row["tests"])) for name, row in rows.items()
    }
