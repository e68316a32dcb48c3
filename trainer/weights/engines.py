"""Loading weights into running engines, for a trainer that is not asynchronous."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from odradek.infra.runtime.crash_points import crash_point
from odradek.infra.runtime.loop_thread import LoopThread
from odradek.trainer.weights.client import EngineClient
from odradek.trainer.weights.fleet import Fleet
from odradek.trainer.weights.recognition import RecognizedEngine


class Engines:
    """All engines that serve a policy. No URL: a run without engines, as in a replay.

    Between two swaps they are looked after in a thread of its own (see `Fleet`), until `close`.

    Args:
        urls: Their roots.
        timeout_s: How long one may say nothing before it counts as away.
        tell: Gets a line on what a person may want to know.
        at: Called at each crash point.
        client: Makes the client of a URL; over HTTP, of whatever kind answers, if none is given.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        timeout_s: float = 120.0,
        tell: Callable[[str], None] = lambda _: None,
        at: Callable[[str], None] = crash_point,
        client: Callable[[str], EngineClient] | None = None,
    ) -> None:
        client = client or partial(RecognizedEngine, quiet_s=timeout_s, at=at)
        self._fleet = Fleet([client(url) for url in urls], timeout_s=timeout_s, tell=tell)
        self._empty = not urls
        self._thread: LoopThread | None = None

    def reach(self) -> None:
        """Return once one of the engines answers. Raises EngineDown."""
        if not self._empty:
            self._loop.call(self._fleet.reach())

    def swap(self, folder: Path, version: int) -> dict[str, int]:
        """Have the engines load `folder` and call it `version`, all at once.

        One that goes away in the middle is asked again from the start, which changes nothing where
        it had already been done; one that stays away is loaded when it is back.

        Returns:
            By address, the version that each of them serves now, 0 where nobody knows; at least
            one serves this one.

        Raises:
            EngineDown: None of them has the weights, and none answers, for `timeout_s`.
            EngineRefused: None of them has them, and one answered with an error.
        """
        return {} if self._empty else self._loop.call(self._fleet.swap(folder, version))

    def close(self) -> None:
        """Leave the engines as they are."""
        if self._thread is not None:
            self._thread.call(self._fleet.aclose())
            self._thread.close()
            self._thread = None

    @property
    def _loop(self) -> LoopThread:
        if self._thread is None:
            self._thread = LoopThread("engines")
        return self._thread
