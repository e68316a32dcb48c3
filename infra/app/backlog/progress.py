"""Whether a process that has something to do does it, judged by its own usual pace: pure."""

from collections import deque
from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from odradek.infra.app.backlog.lag import ProcessLag

GAPS: Final = 64
"""How many intervals are remembered."""


class UsualPace:
    """When something was finished, and how long that usually takes.

    The usual interval is the one in which a moment that is chosen at random falls: half of the time
    passes in intervals that are as long or longer. So things that come in bursts have the interval
    of the bursts, and a long pause alone does not count as usual.
    """

    def __init__(self) -> None:
        self._gaps: deque[float] = deque(maxlen=GAPS)
        self._since: float | None = None

    def finished(self, now: float) -> None:
        """Something was finished."""
        if self._since is not None and now > self._since:
            self._gaps.append(now - self._since)
        self._since = now

    def rested(self, now: float) -> None:
        """There is nothing to do: the time until there is something is no interval."""
        self._since = now

    def idle(self, now: float) -> float:
        """Seconds since something was finished, or since there was something to do."""
        if self._since is None:
            self._since = now
        return max(0.0, now - self._since)

    def usual(self) -> float:
        """The usual interval in seconds; 0 while nobody knows."""
        gaps = sorted(self._gaps)
        half, passed = sum(gaps) / 2, 0.0
        for gap in gaps:
            passed += gap
            if passed >= half:
                return gap
        return 0.0


class Standstill(Struct, frozen=True):
    """A process on a topic, and its pace."""

    process: str
    topic: str
    idle_s: float
    """For how long it has finished nothing although it has something to do."""
    usual_s: float
    """How long that usually takes."""


class ProgressWatch:
    """Looks at one count of backlogs after the other."""

    def __init__(self) -> None:
        self._paces: dict[tuple[str, str], UsualPace] = {}
        self._states: dict[tuple[str, str], tuple[tuple[int, int], ...]] = {}

    def look(self, lags: Iterable[ProcessLag], now: float) -> list[Standstill]:
        """Take the next count.

        Args:
            lags: How far each process is behind.
            now: When that was counted, in seconds of a clock that is never set back.
        """
        return [self._one(lag, now) for lag in lags]

    def _one(self, lag: ProcessLag, now: float) -> Standstill:
        key = lag.process, lag.topic
        pace = self._paces.setdefault(key, UsualPace())
        state = tuple((each.done, each.left) for each in lag.partitions)
        moved = self._states.get(key, state) != state
        self._states[key] = state
        if moved:
            pace.finished(now)
        elif not lag.lag:
            pace.rested(now)
        return Standstill(*key, pace.idle(now), pace.usual())
