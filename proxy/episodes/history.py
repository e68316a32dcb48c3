"""The new part of a turn: the rest after the longest prefix that an acked turn holds.

An episode's turns form a tree, since sub-agents branch off. Kept are its leaves: a turn whose
whole history another one continues cannot have the longer common prefix, so it is dropped. What a
long episode writes grows with its length, and what we remember with its number of branches.
"""

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from odradek.proxy.wire import media
from odradek.proxy.wire.shapes import REASONING
from odradek.schemas.arrays import ID_BYTES, common_prefix
from odradek.schemas.sampling import complete

EMPTY: Final[tuple[Any, ...]] = (None, "", [])
MAX_LEAVES: Final = 256
"""As many as an episode has calls in flight: with fewer, sub-agents that take turns would push each
other out, and each of their turns would be written whole."""
MAX_BYTES: Final = 8 * 1024 * 1024
END_BYTES: Final = 256
"""What a ReplyEnd takes in memory, about."""


class ReplyEnd(Struct, frozen=True, gc=False):
    """Where a reply ends within a leaf, for a prompt that carries its ids on."""

    messages: int
    """Of the leaf's history, the reply the last of them."""
    start: int
    """Where its sampled ids begin, in ids."""
    end: int
    closed: bool
    """Whether the engine ended it at its end token, not at a limit or in a stop string."""
    shape: bytes
    """Digest of what shaped its prompt beside the messages, such as tools."""


class Leaf(Struct, frozen=True, kw_only=True):
    """An acked turn that later ones may build on."""

    turn_id: str
    messages: list[Raw]
    reply: Raw
    ids: bytes
    """Prompt and completion, little-endian u32."""
    size: int
    """Bytes that it holds in memory."""
    sampling: dict[str, Any] = {}
    """How it was sampled."""
    media: int | None = None
    """Which of its messages, its reply the last of them, is the first that is more than text."""
    ends: tuple[ReplyEnd, ...] = ()
    """The replies in it, in order; kept only where prompts carry ids on."""


class EpisodeBranches:
    """The leaves of an episode, newest last, bounded in number and in bytes."""

    def __init__(self, *, max_leaves: int = MAX_LEAVES, max_bytes: int = MAX_BYTES) -> None:
        self.size = 0
        """Bytes that they hold in memory, about."""
        self._leaves: list[Leaf] = []
        self._max_leaves = max_leaves
        self._max_bytes = max_bytes

    def __len__(self) -> int:
        return len(self._leaves)

    def messages(self, messages: list[Raw]) -> tuple[str, int]:
        """(turn_id, number of messages of its history that come first); ("", 0) for none."""
        best, kept = "", 0
        for leaf in reversed(self._leaves):
            if kept == len(messages):
                break
            if kept < len(leaf.messages) and leaf.messages[kept] != messages[kept]:
                continue  # whatever it has in common with them, it is no more
            n = common_messages(leaf, messages)
            if n > kept:
                best, kept = leaf.turn_id, n
        return best, kept

    def media(self, turn_id: str, messages: list[Raw], kept: int) -> int | None:
        """Which of these messages is the first that is more than text; `kept` are that turn's."""
        for leaf in self._leaves if turn_id else ():
            if leaf.turn_id == turn_id and leaf.media is not None and leaf.media < kept:
                return leaf.media
        at = media.first(messages[kept:])
        return None if at is None else kept + at

    def sampling(self, turn_id: str, sampling: dict[str, Any]) -> dict[str, Any]:
        """The sampling to record for a turn on that one: nothing if it is the same."""
        alike = bool(turn_id) and any(
            leaf.turn_id == turn_id and leaf.sampling == sampling and complete(sampling)
            for leaf in self._leaves
        )
        return {} if alike else sampling

    def prompt(self, ids: bytes) -> tuple[str, int]:
        """(turn_id, number of its ids that come first); ("", 0) for none."""
        best, length = "", 0
        for leaf in reversed(self._leaves):
            # One comparison of bytes tells most leaves off; to count what is common takes longer.
            if not leaf.ids.startswith(ids[: ID_BYTES * (length + 1)]):
                continue
            n = common_prefix(leaf.ids, ids)
            if n > length:
                best, length = leaf.turn_id, n
        return best, length

    def reply(self, messages: list[Raw]) -> tuple[Leaf, ReplyEnd] | None:
        """The last reply that comes first in these messages and is followed by new ones."""
        best: tuple[Leaf, ReplyEnd] | None = None
        for leaf in reversed(self._leaves):
            if not leaf.ends:
                continue
            n = common_messages(leaf, messages)
            if n == len(leaf.messages) < len(messages) and respelt(leaf.reply, messages[n]):
                n += 1
            n = min(n, len(messages) - 1)
            for end in reversed(leaf.ends):
                if end.messages <= n:
                    if best is None or end.messages > best[1].messages:
                        best = leaf, end
                    break
        return best

    def add(self, leaf: Leaf) -> None:
        """Remember a turn that the log has acknowledged; forget what it continues."""
        continued = [old for old in self._leaves if _continues(leaf, old)]
        if continued:
            self._leaves = [old for old in self._leaves if old not in continued]
            ends = max((old.ends for old in continued), key=len)
            if ends:
                size = leaf.size + END_BYTES * len(ends)
                leaf = msgspec.structs.replace(leaf, ends=ends + leaf.ends, size=size)
        self._leaves.append(leaf)
        self.size = sum(old.size for old in self._leaves)
        while self._leaves and (
            len(self._leaves) > self._max_leaves or self.size > self._max_bytes
        ):
            self.size -= self._leaves.pop(0).size

    def clear(self) -> None:
        """Forget everything: the next turn is written whole."""
        self._leaves.clear()
        self.size = 0


def common_messages(leaf: Leaf, messages: list[Raw]) -> int:
    """How many of `messages` are the leaf's history: its messages and then its reply."""
    n = 0
    for ours, theirs in zip(leaf.messages, messages, strict=False):
        if ours != theirs:
            return n
        n += 1
    if n == len(leaf.messages) < len(messages) and same(leaf.reply, messages[n]):
        n += 1
    return n


def same(first: Raw, second: Raw) -> bool:
    """Whether two messages are equal as JSON, empty fields apart.

    Clients write a reply back in their own spacing, and many without its nulls.
    """
    if first == second:
        return True
    if first == Raw(b"null"):
        return False
    try:
        return bool(_full(first) == _full(second))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False


def respelt(reply: Raw, message: Raw) -> bool:
    """Whether a message is an earlier reply, apart from changes that clients make silently.

    They spell the arguments of tool calls anew, and few send reasoning back.
    """
    text = bytes(reply)
    if not any(name in text for name in (b'"arguments"', b'"reasoning', b'"thinking"')):
        return False
    try:
        ours, theirs = _valued(reply), _valued(message)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in set(REASONING) - theirs.keys():
            ours.pop(name, None)
    return bool(ours == theirs)


def _valued(message: Raw) -> Any:
    fields = _full(message)
    for call in fields.get("tool_calls", ()) if isinstance(fields, dict) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict) and isinstance(arguments := function.get("arguments"), str):
            function["arguments"] = msgspec.json.decode(arguments or "{}")
    return fields


def _full(message: Raw) -> Any:
    fields = msgspec.json.decode(message)
    if not isinstance(fields, dict):
        return fields
    return {name: value for name, value in fields.items() if value not in EMPTY}


def _continues(new: Leaf, old: Leaf) -> bool:
    return (
        new.ids.startswith(old.ids)
        and len(new.messages) > len(old.messages)
        and common_messages(old, new.messages) >= len(old.messages)
    )
