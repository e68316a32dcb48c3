"""A process whose clock is wrong: `python -m tests.chaos.processes.skewed_clock SECONDS VERB ...`.

Only the wall clock is off; durations are measured on another clock, as on a real machine.
"""

import sys
import time


def apply(seconds: float) -> None:
    """Put the wall clock off; before anything of ours is imported."""
    right = time.time
    if seconds:
        time.time = lambda: right() + seconds


if __name__ == "__main__":
    off, sys.argv[1:] = sys.argv[1], sys.argv[2:]
    apply(float(off))
    from odradek.infra.app.cli import main

    main()
