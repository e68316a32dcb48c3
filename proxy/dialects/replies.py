"""An episode's earlier replies, for dialects that refer back to them."""

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

MAX_REPLIES: Final = 64
MAX_CALLS: Final = 1024
MAX_BYTES: Final = 8 * 1024 * 1024


POINTER: Final = 8
OVERHEAD: Final = 128
"""Bytes that a message, or the arguments of a call, take beside their text."""


class ReplyStore:
    """Replies of one episode, the newest within bounds of number and of bytes."""

    def __init__(self) -> None:
        self._chains: dict[str, tuple[Raw, ...]] = {}
        """Conversations by the reply that ended them. They share the messages of their history."""
        self._holders: Counter[int] = Counter()
        """How many conversations hold a message, by its identity."""
        self._size = 0
        self._arguments: dict[tuple[str, bytes], str] = {}
        self._spelt = 0
        """Bytes of all arguments."""

    @property
    def size(self) -> int:
        """Bytes that it holds, about."""
        return self._size + self._spelt

    def chain(self, reply_id: str) -> tuple[Raw, ...] | None:
        """The conversation that ended with this reply, None if it is unknown."""
        return self._chains.get(reply_id)

    def keep(self, reply_id: str, messages: tuple[Raw, ...]) -> None:
        """Remember a reply, its conversation up to its own message."""
        self._drop(reply_id)
        self._chains[reply_id] = messages
        self._size += POINTER * len(messages)
        for message in messages:
            if not self._holders[id(message)]:
                self._size += OVERHEAD + len(message)
            self._holders[id(message)] += 1
        while self._chains and (len(self._chains) > MAX_REPLIES or self._size > MAX_BYTES):
            self._drop(next(iter(self._chains)))

    def _drop(self, reply_id: str) -> None:
        """Forget a reply, and the messages that no other conversation holds."""
        messages = self._chains.pop(reply_id, ())
        self._size -= POINTER * len(messages)
        for message in messages:
            self._holders[id(message)] -= 1
            if not self._holders[id(message)]:
                del self._holders[id(message)]
                self._size -= OVERHEAD + len(message)

    def learn(
        self, message: Raw, value: "Values | None" = None, *, anonymous: bool = False
    ) -> None:
        """Remember how the engine spelt the arguments of a message's tool calls.

        Args:
            message: The engine's.
            value: What the agent gets of a call, by the function's name and its arguments.
            anonymous: Whether it may hand a call back without its id.
        """
        if b'"tool_calls"' not in bytes(message):
            return
        try:
            calls = msgspec.json.decode(message, type=_Message).tool_calls or ()
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return
        for call in calls:
            function = call.function
            arguments = (
                value(function.name, function.arguments) if value else read(function.arguments)
            )
            for call_id in {call.id, ""} if anonymous else {call.id}:
                self._spell((call_id, _canonical(arguments)), function)

    def _spell(self, key: tuple[str, bytes], function: "_Function") -> None:
        self._unspell(key)
        self._arguments[key] = function.arguments
        self._spelt += _weight(key, function.arguments)
        while len(self._arguments) > MAX_CALLS or self._spelt > MAX_BYTES:
            self._unspell(next(iter(self._arguments)))

    def _unspell(self, key: tuple[str, bytes]) -> None:
        text = self._arguments.pop(key, None)
        self._spelt -= 0 if text is None else _weight(key, text)

    def arguments(self, call_id: str, value: Any) -> str:
        """The arguments of a tool call as text: as the engine wrote them, if they are the same.

        A client that parses them and sends them back would else move their blanks, and with them
        the tokens of the next prompt. The id alone does not name a call: some engines count their
        calls anew in each reply.
        """
        spelling = self._arguments.get((call_id, _canonical(value)))
        return msgspec.json.encode(value).decode() if spelling is None else spelling

    def spelt(self, call_id: str, text: str) -> str:
        """The same where the client sends them as text."""
        return self._arguments.get((call_id, _canonical(read(text))), text)


def _weight(key: tuple[str, bytes], text: str) -> int:
    return OVERHEAD + len(key[0]) + len(key[1]) + len(text)


def _canonical(value: Any) -> bytes:
    return msgspec.json.encode(value, order="sorted")


INVALID: Final = "INVALID_JSON"
"""The one key of a tool's input where the model's arguments are no JSON object."""


def read(text: str) -> dict[str, Any]:
    """A tool's arguments; where the model wrote no JSON object, its words under one key."""
    try:
        parsed = msgspec.json.decode(text or "{}")
    except (msgspec.MsgspecError, RecursionError):
        parsed = None
    return parsed if isinstance(parsed, dict) else {INVALID: text}


Values = Callable[[str, str], dict[str, Any]]


class _Function(Struct, frozen=True):
    name: str = ""
    arguments: str = ""


class _Call(Struct):
    id: str = ""
    function: _Function = _Function()


class _Message(Struct):
    tool_calls: list[_Call] | None = None
