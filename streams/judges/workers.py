"""Plain functions, each asked in a worker: as many at once as there are places.

Pools of the standard library and of others send pickled objects both ways and share one pipe
between workers; ours shares nothing, so that it can kill one worker at any moment.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from odradek.schemas.events import Conversation
from odradek.streams.errors import NoWorker, RewardFailed
from odradek.streams.judges.judge import TIMEOUT_S
from odradek.streams.judges.process import Worker
from odradek.streams.judges.worker import WorkerReply

VERDICTS: Final = 1000
"""After so many a worker is replaced, and with it the memory that the function has lost."""


class Workers:
    """A Judge over worker processes, which begin as they are needed.

    Args:
        path: `module:function`, imported once in each worker.
        most: How many workers there may be.
        timeout_s: How long one verdict may take; then its worker is killed.
        verdicts: After so many a worker is replaced.
        first: A worker that is there already.
    """

    def __init__(
        self,
        path: str,
        most: int,
        timeout_s: float = TIMEOUT_S,
        *,
        verdicts: int = VERDICTS,
        first: Worker | None = None,
    ) -> None:
        self.workers: set[Worker] = set()
        """All that live."""
        self._path = path
        self._timeout_s = timeout_s
        self._verdicts = verdicts
        self._places = asyncio.Semaphore(most)
        self._idle: list[Worker] = []
        self._closed = False
        if first is not None:
            self.workers.add(first)
            self._idle.append(first)

    async def start(self) -> None:
        """See `Judge`."""

    async def aclose(self) -> None:
        """See `Judge`: let idle workers end in good order, kill the others."""
        self._closed = True
        idle, self._idle = self._idle, []
        busy = self.workers.difference(idle)
        await asyncio.gather(
            *(worker.kill() for worker in busy), *(worker.end() for worker in idle)
        )
        self.workers.clear()

    async def judge(self, conversation: Conversation, value: bytes) -> float:
        """See `Judge`."""
        del conversation
        async with self._places:
            try:
                answer = await self._ask(await self._take(), value)
            except RewardFailed as error:
                if self._closed or not error.again:
                    raise
                # A new worker holds nothing of other verdicts: a signal there comes of this one.
                answer = await self._ask(await self._begin(), value)
        if answer.worth is None:
            raise RewardFailed(answer.failed)
        return answer.worth

    async def judge_many(self, values: Sequence[bytes]) -> list[float | RewardFailed]:
        """Verdicts on conversations, as their records hold them; what failed is in its place.

        A worker gets all of them at once, which costs a fifth of asking for each. One that dies,
        or takes too long, does so over the first that it has not answered: another worker is asked
        for that alone, and for the rest together.

        Raises:
            NoWorker: No worker can be asked.
        """
        verdicts: list[float | RewardFailed] = []
        while len(verdicts) < len(values):
            async with self._places:
                worker = await self._take()
                try:
                    replies = await worker.ask_many(values[len(verdicts) :], self._timeout_s)
                finally:
                    await self._put_back(worker)
            verdicts += [
                RewardFailed(reply.failed) if reply.worth is None else reply.worth
                for reply in replies
            ]
            if len(verdicts) < len(values):
                verdicts.append(await self._alone(values[len(verdicts)]))
        return verdicts

    async def _alone(self, value: bytes) -> float | RewardFailed:
        async with self._places:
            try:
                answer = await self._ask(await self._begin(), value)
            except RewardFailed as error:
                return error
        return RewardFailed(answer.failed) if answer.worth is None else answer.worth

    async def _ask(self, worker: Worker, value: bytes) -> WorkerReply:
        try:
            return await worker.ask(value, self._timeout_s)
        finally:
            await self._put_back(worker)

    async def _take(self) -> Worker:
        """The worker that was asked last, so that no more begin than are needed."""
        while self._idle:
            worker = self._idle.pop()
            if worker.alive:
                return worker
            await self._let_go(worker)  # killed while it had nothing to do
        return await self._begin()

    async def _begin(self) -> Worker:
        try:
            worker = await Worker.start(self._path)
        except RewardFailed as error:
            raise NoWorker(
                f"a worker that imports {self._path} cannot be started: {error}. Where memory is "
                "short, lower --concurrency"
            ) from error
        self.workers.add(worker)
        return worker

    async def _put_back(self, worker: Worker) -> None:
        if worker.alive and worker.verdicts < self._verdicts:
            self._idle.append(worker)
        else:
            await self._let_go(worker)

    async def _let_go(self, worker: Worker) -> None:
        await worker.end()
        self.workers.discard(worker)
