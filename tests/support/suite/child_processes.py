"""What a test's child processes need, to import what tests import."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
"""The folder of the repository."""


def python_path() -> str:
    """`PYTHONPATH` with which a child process imports `tests`, whatever folder it runs in."""
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
