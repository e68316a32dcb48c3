"""A thread that writes one checkpoint at a time while the run goes on."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

from odradek.trainer.commit.protocol import Saved

log = logging.getLogger("odradek")

WRITERS: Final = 4
"""Shards that are written at once."""


class CheckpointWriter:
    """Writes checkpoints in their order, at most one at a time.

    What ends the writing ends the run: it is raised where the result is asked for.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._shards = ThreadPoolExecutor(WRITERS, thread_name_prefix="shard")
        self._step = 0
        self._under_way: Future[tuple[str, float]] | None = None

    def begin(self, step: int, write: Callable[[Any], str]) -> None:
        """Write the checkpoint of a step from here on.

        Args:
            step: Its number.
            write: Does it, with the `map` that it is given; returns the manifest's sha256.
        """
        if self._under_way is not None:
            raise RuntimeError(f"the checkpoint of step {self._step} is still being written")
        self._step = step

        def timed() -> tuple[str, float]:
            began = time.perf_counter()
            return write(self._shards.map), time.perf_counter() - began

        self._under_way = self._pool.submit(timed)

    def result(self, *, wait: bool) -> Saved | None:
        """The checkpoint under way, once it is durable; None if it is not yet, or if there is none.

        Args:
            wait: Wait for it.

        Raises what ended the writing, such as NoRoom.
        """
        if self._under_way is None or not (wait or self._under_way.done()):
            return None
        under_way, self._under_way = self._under_way, None
        digest, seconds = under_way.result()
        return Saved(self._step, digest, seconds)

    def close(self) -> None:
        """Wait for what is being written, which then is whole but was not told."""
        if self._under_way is not None and (error := self._under_way.exception()) is not None:
            log.warning("the checkpoint of step %d was not written: %s", self._step, error)
        self._pool.shutdown()
        self._shards.shutdown()
