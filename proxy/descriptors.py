"""How many connections this process may hold: two for each call that waits."""

import resource
from typing import Final

MOST: Final = 2**20
"""Where there is no hard limit: enough, and what Linux allows a process by default."""


def raise_limit() -> int:
    """Raise the soft limit of open files to the hard one; return what it is now.

    The hard limit is the administrator's: `ulimit -Hn`, `LimitNOFILE=` of systemd, or
    `--ulimit nofile` of a container.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft == resource.RLIM_INFINITY or soft >= target:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
    return target
