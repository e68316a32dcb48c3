"""The rollout worker of TRL's trainer: rows from the log instead of rows from a generator.

TRL asks for an object that fills a queue. Ours reads groups from a source, lets `Cursor` decide
which of their rows are used, and puts those into the queue in order.
"""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from odradek.trainer.errors import RowsEnded
from odradek.trainer.feed.cursor import ConsumedRows, Cursor
from odradek.trainer.feed.rows import EpisodeGroup, Row
from odradek.trainer.feed.sampling import altering_fields

log = logging.getLogger("odradek")

POLL_S: Final = 0.2


class GroupSource(Protocol):
    """Where groups come from: the log, or a list in tests."""

    def next(self, timeout_s: float) -> EpisodeGroup | None:
        """The next group in the order of the topic, or None if none came in time."""
        ...

    def ended(self) -> bool:
        """Whether no group will come any more."""
        ...

    def close(self) -> None:
        """Release the held rows."""
        ...


class ListedGroups:
    """A source that holds its groups, for tests and for `odradek bench`."""

    def __init__(self, groups: Iterable[EpisodeGroup], *, ends: bool = True) -> None:
        self._groups = deque(groups)
        self._ends = ends

    def next(self, timeout_s: float) -> EpisodeGroup | None:
        """See `GroupSource`."""
        if not self._groups:
            time.sleep(0.0 if self._ends else min(timeout_s, 0.01))
            return None
        return self._groups.popleft()

    def ended(self) -> bool:
        """See `GroupSource`."""
        return self._ends and not self._groups

    def close(self) -> None:
        """See `GroupSource`."""


class LogRolloutWorker:
    """Implements TRL's `RolloutWorkerProtocol`; one thread between `start` and `stop`."""

    def __init__(
        self,
        source: GroupSource,
        consumption: Cursor,
        *,
        ahead: int,
        idle_s: float = 1.0,
    ) -> None:
        self.rollout_buffer: queue.Queue[Any] = queue.Queue(maxsize=ahead)
        self.metrics_queue: queue.Queue[Any] = queue.Queue()
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        """Held while `consumption` changes."""
        self.consumption = consumption
        self._source = source
        self.on_idle: Callable[[ConsumedRows], None] = lambda _: None
        """Called with batches that were passed while the trainer waits; set by the trainer."""
        self.on_wait: Callable[[], None] = lambda: None
        """Called in the training thread now and then while it waits; set by the trainer."""
        self._idle_s = idle_s
        self._waiting_since: float | None = None
        self._announced = -1
        self._altering: set[str] = set()
        self._ended = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    def start(self) -> None:
        """Begin reading; called once, after the weights have reached the engine."""
        self._thread.start()

    def stop(self) -> None:
        """Stop reading and close the source."""
        self.stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=30)
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self._source.close()

    def update_model_version(self, model_version: int) -> None:
        """Nothing: versions come from the log, not from TRL's count."""

    def check_health(self, stale_after_s: float = 0.0) -> None:
        """Called while the trainer waits for rows.

        Raises:
            RowsEnded: Nothing more will come: the source ended, or the run is to stop.
            TrainerError: What ended the reading thread, such as PositionGone.
        """
        del stale_after_s
        if self._failure is not None:
            raise self._failure
        if self.stopping.is_set() or (self._ended.is_set() and self.rollout_buffer.empty()):
            raise RowsEnded("no more rows")
        self.on_wait()
        now = time.monotonic()
        self._waiting_since = self._waiting_since or now
        if now - self._waiting_since >= self._idle_s:
            self._tell_idle()

    def busy(self) -> None:
        """Note that a step was made, so that idleness is counted anew."""
        self._waiting_since = None

    def _tell_idle(self) -> None:
        """Report batches that were passed, or dispatcher and trainer wait for each other."""
        with self.lock:
            read = self.consumption.read
            passed = self.consumption.passed_idle() if read > self._announced else None
        if passed is not None and passed.position > self._announced:
            self._announced = passed.position
            self.on_idle(passed)

    def announced(self, position: int) -> None:
        """Note a position that a step's ledger entry has announced."""
        self._announced = max(self._announced, position)

    def _run(self) -> None:
        try:
            while not self.stopping.is_set():
                group = self._source.next(POLL_S)
                if group is None:
                    if self._source.ended():
                        self._ended.set()
                        return
                    continue
                with self.lock:
                    rows = self.consumption.feed(group)
                if self.consumption.remark:
                    log.warning("%s", self.consumption.remark)
                self._warn_of_altering(group)
                for row in rows:
                    self._put(row)
        except BaseException as failure:  # noqa: BLE001 - handed to the training thread, as is
            self._failure = failure

    def _warn_of_altering(self, group: EpisodeGroup) -> None:
        """Name, once, each field for which replies are not trained on."""
        for _, episode in group.episodes:
            for name in sorted(altering_fields(episode) - self._altering):
                self._altering.add(name)
                log.warning(
                    "replies are not trained on because of %s in their requests (first in episode "
                    "%s): take it out of the agent, or start the proxy with "
                    "ODRADEK_PROXY_SAMPLING=force",
                    *(name, episode.episode_id),
                )

    def _put(self, row: Row) -> None:
        while not self.stopping.is_set():
            try:
                self.rollout_buffer.put(row, timeout=POLL_S)
            except queue.Full:
                continue
            return
