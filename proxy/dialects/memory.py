"""What an episode's earlier replies were, for dialects that refer back to them."""

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

MAX_REPLIES: Final = 64
MAX_CALLS: Final = 1024
MAX_BYTES: Final = 8 * 1024 * 1024


class Chain(Struct, frozen=True):
    """A reply's whole conversation, its own message last, and what it weighs."""

    messages: tuple[Raw, ...]
    size: int


class Memory:
    """Replies of one episode, the newest within bounds."""

    def __init__(self) -> None:
        self._chains: dict[str, Chain] = {}
        self._arguments: dict[tuple[str, bytes], str] = {}
        self._size = 0

    def chain(self, reply_id: str) -> tuple[Raw, ...] | None:
        """The conversation that ended with this reply, None if it is unknown."""
        found = self._chains.get(reply_id)
        return found.messages if found else None

    def keep(self, reply_id: str, messages: tuple[Raw, ...], *, new: int) -> None:
        """Remember a reply; its last `new` messages are those that no other one holds."""
        size = sum(map(len, messages[len(messages) - new :]))
        before = self._chains.pop(reply_id, None)
        self._size += size - (before.size if before else 0)
        self._chains[reply_id] = Chain(messages, size)
        while self._chains and (len(self._chains) > MAX_REPLIES or self._size > MAX_BYTES):
            self._size -= self._chains.pop(next(iter(self._chains))).size

    def learn(self, message: Raw) -> None:
        """Remember how the engine spelt the arguments of a message's tool calls."""
        if b'"tool_calls"' not in bytes(message):
            return
        try:
            calls = msgspec.json.decode(message, type=_Message).tool_calls or ()
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return
        for call in calls:
            if len(self._arguments) >= MAX_CALLS:
                del self._arguments[next(iter(self._arguments))]
            text = call.function.arguments
            self._arguments[call.id, _canonical(read(text))] = text

    def arguments(self, call_id: str, value: Any) -> str:
        """The arguments of a tool call as text: as the engine wrote them, if they are the same.

        A client that parses them and sends them back would else move their blanks, and with them
        the tokens of the next prompt. The id alone does not name a call: some engines count their
        calls anew in each reply.
        """
        known = self._arguments.get((call_id, _canonical(value)))
        return msgspec.json.encode(value).decode() if known is None else known

    def spelt(self, call_id: str, text: str) -> str:
        """The same where the client sends them as text."""
        return self._arguments.get((call_id, _canonical(read(text))), text)


def _canonical(value: Any) -> bytes:
    return msgspec.json.encode(value, order="sorted")


INVALID: Final = "INVALID_JSON"
"""The one key of a tool's input where the model's arguments are no JSON object."""


def read(text: str) -> dict[str, Any]:
    """A tool's arguments; where the model wrote no JSON object, its words under one key."""
    try:
        found = msgspec.json.decode(text or "{}")
    except (msgspec.MsgspecError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {INVALID: text}


class _Function(Struct, frozen=True):
    arguments: str = ""


class _Call(Struct):
    id: str = ""
    function: _Function = _Function()


class _Message(Struct):
    tool_calls: list[_Call] | None = None
