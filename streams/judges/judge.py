"""What judges: a user's function, asked one conversation at a time."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Protocol

from odradek.infra.named import find
from odradek.schemas.errors import NoNumber, NotFinite
from odradek.schemas.events import Conversation
from odradek.schemas.numbers import Number, number
from odradek.streams.errors import RewardFailed, RewardRefused

Scores = Callable[[Conversation], Number | Awaitable[Number]]
"""What a person writes."""

TIMEOUT_S: Final = 120.0
"""How long one verdict may take."""


class Judge(Protocol):
    """Says what a conversation is worth."""

    async def start(self) -> None:
        """Be ready to judge. Raises RewardRefused."""
        ...

    async def judge(self, conversation: Conversation, value: bytes) -> float:
        """A finite number.

        Args:
            conversation: What is judged.
            value: The same as its record holds it.

        Raises RewardFailed if there is none.
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


class Function:
    """A function that judges in this process.

    Args:
        function: Sync (run in a thread) or async.
        timeout_s: How long one verdict may take.
    """

    def __init__(self, function: Scores, timeout_s: float = TIMEOUT_S) -> None:
        self._function = function
        self._timeout_s = timeout_s

    async def start(self) -> None:
        """See `Judge`."""

    async def aclose(self) -> None:
        """See `Judge`."""

    async def judge(self, conversation: Conversation, value: bytes) -> float:
        """See `Judge`."""
        del value
        function = self._function
        try:
            async with asyncio.timeout(self._timeout_s):
                if inspect.iscoroutinefunction(function):
                    worth = await function(conversation)
                else:
                    worth = await asyncio.to_thread(function, conversation)
                    if inspect.isawaitable(worth):
                        worth = await worth
            return number(worth, "what it returned")
        # What a user's function raises can be anything; it must neither end the service nor become
        # a number.
        except Exception as error:
            raise RewardFailed(told(error)) from error


def told(error: BaseException) -> str:
    """Type and innermost place of an error: its text may quote what an agent said."""
    if isinstance(error, (NoNumber, NotFinite)):
        return str(error)  # it names a type
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return type(error).__name__
    file = Path(trace.tb_frame.f_code.co_filename).name
    return f"{type(error).__name__} at {file}:{trace.tb_lineno}"
