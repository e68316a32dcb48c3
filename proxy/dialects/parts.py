"""A chat's reply, whole or streamed, as a run of parts: reasoning, text, tool calls."""

import hashlib
from collections.abc import Iterator
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from odradek.proxy.capture import Body, Choice
from odradek.proxy.dialects.dialect import Ask

REASONING: Final = ("reasoning", "reasoning_content")
"""How engines name it, newer ones first."""
MAX_CALLS: Final = 1024
"""Tool calls of one reply."""


class Part(Struct, frozen=True):
    """A piece of a reply: some text of one kind, or of one tool call's arguments."""

    kind: Literal["reasoning", "text", "refusal", "tool"]
    text: str
    tool: int = 0
    """Which of the reply's tool calls."""
    id: str = ""
    name: str = ""


def identity(engine_id: str, ask: Ask) -> str:
    """A name for a reply: the engine's, bound to the request, since engines may repeat theirs."""
    return hashlib.sha256(f"{engine_id}:{ask.digest}".encode()).hexdigest()[:40]


def first(body: Body) -> Choice | None:
    """The choice that a translated dialect answers with; it asks for no other."""
    for choice in body.choices:
        if choice.index == 0:
            return choice
    return None


def of_message(choice: Choice) -> list[Part]:
    """The parts of a whole message; one that is no object has none."""
    message = msgspec.json.decode(choice.message)
    return list(of(message)) if isinstance(message, dict) else []


def of(said: dict[str, Any]) -> Iterator[Part]:
    """The parts of a message or of a chunk's delta; what is of another type is passed over."""
    for name in REASONING:
        if text := _text(said, name):
            yield Part("reasoning", text)
            break
    if text := _text(said, "content"):
        yield Part("text", text)
    if text := _text(said, "refusal"):
        yield Part("refusal", text)
    calls = said.get("tool_calls")
    for place, call in enumerate(calls if isinstance(calls, list) else ()):
        if not isinstance(call, dict):
            continue
        index = call.get("index", place)
        function = call.get("function")
        function = function if isinstance(function, dict) else {}
        yield Part(
            "tool",
            _text(function, "arguments"),
            index if isinstance(index, int) and 0 <= index < MAX_CALLS else place,
            _text(call, "id"),
            _text(function, "name"),
        )


def _text(said: dict[str, Any], name: str) -> str:
    value = said.get(name)
    return value if isinstance(value, str) else ""
