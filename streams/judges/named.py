"""The judge that `module:function` names."""

from odradek.infra.errors import NoSuchName
from odradek.infra.runtime.imports import parts
from odradek.schemas.events import Conversation
from odradek.streams.errors import RewardFailed, RewardRefused
from odradek.streams.judges.judge import TIMEOUT_S, AsyncJudge, Judge, load
from odradek.streams.judges.process import Worker
from odradek.streams.judges.workers import Workers


class NamedJudge:
    """Asks an async function in this process, any other in workers.

    A worker imports the function first: this process imports only what is async.

    Args:
        path: `module:function`; modules of the working folder are found.
        most: How many workers there may be.
        timeout_s: How long one verdict may take.
    """

    def __init__(self, path: str, most: int, timeout_s: float = TIMEOUT_S) -> None:
        self._path = path
        self._most = most
        self._timeout_s = timeout_s
        self._judge: Judge | None = None

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
            self._judge = Workers(self._path, self._most, self._timeout_s, first=worker)

    async def judge(self, conversation: Conversation, value: bytes) -> float:
        """See `Judge`."""
        assert self._judge is not None, "started"
        return await self._judge.judge(conversation, value)

    async def aclose(self) -> None:
        """See `Judge`."""
        if self._judge is not None:
            await self._judge.aclose()

    @property
    def stuck(self) -> bool:
        """Whether a verdict goes on although it was cancelled: Python would wait for its end."""
        return isinstance(self._judge, AsyncJudge) and bool(self._judge.stuck)
