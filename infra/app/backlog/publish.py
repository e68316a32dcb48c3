"""Backlogs as metrics: of the process that counts them, about all the others."""

import time
from collections.abc import Callable, Sequence

from odradek.infra.app.backlog.lag import ProcessLag
from odradek.infra.app.backlog.progress import ProgressWatch, Standstill
from odradek.infra.runtime import metrics


class BacklogMetrics:
    """Holds the newest count, for whoever asks for metrics.

    Args:
        clock: Seconds, never set back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._watch = ProgressWatch()
        self._lags: Sequence[ProcessLag] = ()
        self._standstills: list[Standstill] = []
        metrics.gauge(
            metrics.LAG,
            lambda: [(each.lag, (each.process, each.topic)) for each in self._lags],
        )
        metrics.gauge(
            metrics.LAG_IDLE,
            lambda: [(each.idle_s, (each.process, each.topic)) for each in self._standstills],
        )
        metrics.gauge(
            metrics.LAG_USUAL,
            lambda: [(each.usual_s, (each.process, each.topic)) for each in self._standstills],
        )

    def show(self, lags: Sequence[ProcessLag]) -> None:
        """Take the next count."""
        self._standstills = self._watch.look(lags, self._clock())
        self._lags = lags
