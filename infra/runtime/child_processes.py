"""Children that do not outlive us."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from typing import Final

PR_SET_PDEATHSIG: Final = 1


def die_with_parent(parent: int | None = None) -> Callable[[], None] | None:
    """What a child calls so that the kernel kills it when its parent is gone (Linux only).

    Args:
        parent: Its id; we, if not given: the child calls before exec what we have made here.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    expected = os.getpid() if parent is None else parent

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
        # The parent may have died before the line above.
        if os.getppid() != expected:
            os._exit(1)

    return ask
