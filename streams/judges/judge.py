"""A judge: a user's function that is called with one conversation at a time."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from odradek.infra.errors import InfraError
from odradek.infra.runtime.foreign_code import (
    ForeignCode,
    answer_of,
    error_site,
    one_line,
    place_of,
    type_of,
)
from odradek.infra.runtime.imports import find
from odradek.schemas.errors import NoNumber, NotFinite
from odradek.schemas.events import Conversation
from odradek.schemas.numbers import Number, number
from odradek.streams.errors import RewardFailed, RewardRefused, StreamError

Scores = Callable[[Conversation], Number | Awaitable[Number]]
"""What a person writes."""

TIMEOUT_S: Final = 120.0
"""How long one verdict may take."""
CANCEL_S: Final = 1.0
"""How long an async function may take to end once it is cancelled."""
RETURNED: Final = "what it returned"


class Judge(Protocol):
    """Gives a conversation its reward."""

    async def start(self) -> None:
        """Be ready to judge. Raises RewardRefused."""
        ...

    async def judge(self, conversation: Conversation, value: bytes) -> float:
        """A finite number.

        Args:
            conversation: What is judged.
            value: The same as its record holds it.

        Raises:
            RewardFailed: There is none.
            RewardRefused: There will never be any.
        """
        ...

    async def aclose(self) -> None:
        """Let go of what judging needed."""
        ...


def load(path: str) -> Scores:
    """The function that `module:function` names; modules of the working folder are found.

    Raises:
        NoSuchName: There is no such thing.
        RewardRefused: It is no function.
    """
    function = find(path)
    if not callable(function):
        raise RewardRefused(f"{path} is not a function")
    return function  # type: ignore[no-any-return] # what a person's module holds has no types


def is_async(function: Scores) -> bool:
    """Whether a function, or an object that is called like one, is `async`."""
    if inspect.iscoroutinefunction(function):
        return True
    return inspect.iscoroutinefunction(type(function).__call__)


def what_failed(error: BaseException) -> str:
    """Type and innermost place of an error, in a line: its text may quote what an agent said."""
    if isinstance(error, (NoNumber, NotFinite)):
        return one_line(str(error))  # it names a type
    return error_site(error)


def why(path: str, error: BaseException) -> str:
    """One line on why a function cannot be imported. It holds no text of an agent."""
    if isinstance(error, (InfraError, StreamError)):
        return one_line(str(error))
    text = answer_of(lambda: str(error)) or "it does not say why"
    return one_line(f"{path} cannot be imported: {type_of(error)}{place_of(error)}: {text}")


class AsyncJudge:
    """An async function, asked in this process.

    It shares the process with the consumer of conversations, so it must not block: nobody can stop
    what does, and the group would not hear of us.

    Args:
        function: Async.
        timeout_s: How long one verdict may take.
    """

    def __init__(self, function: Scores, timeout_s: float = TIMEOUT_S) -> None:
        self.stuck: set[asyncio.Task[float]] = set()
        """Verdicts that go on although they were cancelled."""
        self._function = function
        self._timeout_s = timeout_s

    async def start(self) -> None:
        """See `Judge`."""

    async def aclose(self) -> None:
        """See `Judge`."""

    async def judge(self, conversation: Conversation, value: bytes) -> float:
        """See `Judge`."""
        del value
        verdict = asyncio.create_task(self._ask(conversation))
        try:
            done, _ = await asyncio.wait({verdict}, timeout=self._timeout_s)
        finally:
            if not verdict.done():
                await self._give_up(verdict)
        if not done:
            raise RewardFailed(f"took longer than {self._timeout_s:g} s")
        if verdict.cancelled():
            raise RewardFailed("it cancelled itself")
        return verdict.result()

    async def _ask(self, conversation: Conversation) -> float:
        with ForeignCode(asyncio.CancelledError) as judging:
            worth = self._function(conversation)
            return number(await worth if inspect.isawaitable(worth) else worth, RETURNED)
        assert judging.error is not None
        raise RewardFailed(what_failed(judging.error)) from judging.error

    async def _give_up(self, verdict: "asyncio.Task[float]") -> None:
        verdict.cancel()
        await asyncio.wait({verdict}, timeout=CANCEL_S)
        if not verdict.done():
            self.stuck.add(verdict)
        verdict.add_done_callback(self._over)

    def _over(self, verdict: "asyncio.Task[float]") -> None:
        self.stuck.discard(verdict)
        if not verdict.cancelled():
            verdict.exception()  # nobody waits for it any more
