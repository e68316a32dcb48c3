"""Named crash points: where chaos tests kill a driver, on both sides of a commit."""

import os
import signal
from typing import Final

POINTS: Final = (
    "after_begin",
    "after_produce_before_offsets",
    "after_offsets_before_commit",
    "after_commit",
)
"""Of the Kafka driver's transaction, in their order."""


def crash_point(name: str) -> None:
    """Kill this process with SIGKILL if `ODRADEK_CRASH_AT` names this point."""
    if os.environ.get("ODRADEK_CRASH_AT") == name:
        os.kill(os.getpid(), signal.SIGKILL)
