"""A chat's reply, whole or streamed, as a run of parts: reasoning, text, tool calls."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from odradek.proxy.dialects.dialect import ParsedRequest
from odradek.proxy.wire.shapes import REASONING
from odradek.proxy.wire.tool_calls import TEXTS, text_of
from odradek.schemas.http.reply import Choice, ReplyBody

MAX_CALLS: Final = 1024
"""Tool calls of one reply."""


class ReplyPart(Struct, frozen=True):
    """A piece of a reply: some text of one kind, or of one tool call's arguments."""

    kind: Literal["reasoning", "text", "refusal", "tool"]
    text: str
    tool: int = 0
    """Which of the reply's tool calls."""
    id: str = ""
    name: str = ""


def identity(engine_id: str, request: ParsedRequest) -> str:
    """A name for a reply: the engine's, bound to the request, since engines may repeat theirs."""
    return hashlib.sha256(f"{engine_id}:{request.digest}".encode()).hexdigest()[:40]


def first(body: ReplyBody) -> Choice | None:
    """The choice that a translated dialect answers with; it asks for no other."""
    for choice in body.choices:
        if choice.index == 0:
            return choice
    return None


def of_message(choice: Choice) -> list[ReplyPart]:
    """The parts of a whole message; a message that is not an object has none."""
    message = msgspec.json.decode(choice.message)
    return list(of(message)) if isinstance(message, dict) else []


def of(message: dict[str, Any]) -> Iterator[ReplyPart]:
    """The parts of a message or of a chunk's delta; other types are ignored."""
    for name in REASONING:
        if text := _text(message, name):
            yield ReplyPart("reasoning", text)
            break
    if text := _text(message, "content"):
        yield ReplyPart("text", text)
    if text := _text(message, "refusal"):
        yield ReplyPart("refusal", text)
    calls = message.get("tool_calls")
    if not calls and isinstance(old := message.get("function_call"), dict):
        calls = [{"function": old}]  # the older way to call the one function
    for place, call in enumerate(calls if isinstance(calls, list) else ()):
        if not isinstance(call, dict):
            continue
        index = call.get("index", place)
        kind = "custom" if isinstance(call.get("custom"), dict) else "function"
        function = call.get(kind)
        function = function if isinstance(function, dict) else {}
        yield ReplyPart(
            "tool",
            text_of(function.get(TEXTS[kind])),
            index if isinstance(index, int) and 0 <= index < MAX_CALLS else place,
            _text(call, "id"),
            _text(function, "name"),
        )


class NamedCalls:
    """Passes on the parts of a stream, each tool call's from where its name is complete.

    Some engines send a name in pieces. A translated stream gives the name once, when a call begins.
    So a call waits for its arguments, for what follows it, or for the end.
    """

    def __init__(self) -> None:
        self._waiting: ReplyPart | None = None
        self._begun: set[int] = set()

    def feed(self, parts: Iterable[ReplyPart]) -> Iterator[ReplyPart]:
        """The parts that are ready."""
        for part in parts:
            waiting = self._waiting
            if waiting is not None:
                if part.kind == "tool" and part.tool == waiting.tool:
                    call_id, name = part.id or waiting.id, waiting.name + part.name
                    part = ReplyPart("tool", part.text, part.tool, call_id, name)  # noqa: PLW2901 - both are one
                else:
                    yield from self.end()
            if part.kind != "tool" or part.tool in self._begun:
                yield part
            elif part.text:
                self._waiting = None
                self._begun.add(part.tool)
                yield part
            else:
                self._waiting = part

    def end(self) -> Iterator[ReplyPart]:
        """The parts that still wait."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._begun.add(waiting.tool)
            yield waiting


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""
