"""The judge that `module:function` names."""

import asyncio
from collections.abc import Sequence

from odradek.infra.errors import NoSuchName
from odradek.infra.runtime.imports import parts
from odradek.schemas import codec
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import Conversation
from odradek.schemas.topics import CONVERSATIONS
from odradek.streams.errors import RewardFailed, RewardRefused
from odradek.streams.judges.judge import TIMEOUT_S, AsyncJudge, load
from odradek.streams.judges.process import Worker
from odradek.streams.judges.workers import VERDICTS, Workers


class NamedJudge:
    """Asks an async function in this process, any other in workers.

    A worker imports the function first: this process imports only what is async.

    Args:
        path: `module:function`; modules of the working folder are found.
        most: How many workers there may be.
        timeout_s: How long one verdict may take.
        verdicts: After so many a worker is replaced, and with it what its function has leaked.
    """

    def __init__(
        self, path: str, most: int, timeout_s: float = TIMEOUT_S, *, verdicts: int = VERDICTS
    ) -> None:
        self._path = path
        self._most = most
        self._timeout_s = timeout_s
        self._verdicts = verdicts
        self._places = asyncio.Semaphore(most)
        self._judge: AsyncJudge | Workers | None = None

    async def start(self) -> None:
        """See `Judge`."""
        try:
            parts(self._path)
            worker = await Worker.start(self._path)
        except NoSuchName as error:
            raise RewardRefused(str(error)) from error
        except RewardFailed as error:
            raise RewardRefused(f"{self._path} cannot be imported: {error}") from error
        if worker.asynchronous:
            await worker.end()
            self._judge = AsyncJudge(load(self._path), self._timeout_s)
        else:
            self._judge = Workers(
                self._path, self._most, self._timeout_s, verdicts=self._verdicts, first=worker
            )

    async def judge(self, conversation: Conversation, value: bytes) -> float:
        """See `Judge`."""
        assert self._judge is not None, "started"
        return await self._judge.judge(conversation, value)

    async def judge_many(self, values: Sequence[bytes]) -> list[float | RewardFailed]:
        """Verdicts on conversations, as their records hold them; what failed is in its place.

        Raises:
            NoWorker: No worker can be asked.
        """
        assert self._judge is not None, "started"
        if isinstance(self._judge, Workers):
            return await self._judge.judge_many(values)
        return await asyncio.gather(*map(self._one, values))

    async def _one(self, value: bytes) -> float | RewardFailed:
        async with self._places:
            try:
                conversation: Conversation = codec.decode(
                    value, Conversation, max_bytes=CONVERSATIONS.max_bytes
                )
                return await self.judge(conversation, value)
            except RewardFailed as error:
                return error
            except InvalidRecord as error:
                return RewardFailed(str(error))

    async def aclose(self) -> None:
        """See `Judge`."""
        if self._judge is not None:
            await self._judge.aclose()

    @property
    def stuck(self) -> bool:
        """Whether a verdict goes on although it was cancelled: Python would wait for its end."""
        return isinstance(self._judge, AsyncJudge) and bool(self._judge.stuck)
