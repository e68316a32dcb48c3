"""A response's input, item by item, as messages of a chat.

The items of one reply (reasoning, message, calls) become one assistant's message again, since a
chat's template would give several messages other tokens than those that were sampled.
"""

from typing import Any, Literal

import msgspec
from msgspec import Struct

from odradek.proxy.dialects.dialect import taken
from odradek.proxy.dialects.memory import Memory
from odradek.proxy.errors import BadRequest, Unsupported


class InputText(Struct, tag="input_text"):
    """Text of a user or of the system."""

    text: str


class PlainText(Struct, tag="text"):
    """The same, as some clients spell it."""

    text: str


class OutputText(Struct, tag="output_text"):
    """Text of the model."""

    text: str


class Refusal(Struct, tag="refusal"):
    """The model's no."""

    refusal: str


class InputImage(Struct, tag="input_image"):
    """An image, by its address."""

    image_url: str | None = None
    detail: str | None = None


class SummaryText(Struct, tag="summary_text"):
    """A part of a summary of reasoning."""

    text: str


class ReasoningText(Struct, tag="reasoning_text"):
    """A part of the reasoning."""

    text: str


Part = InputText | PlainText | OutputText | Refusal | InputImage


class Message(Struct, tag="message"):
    """What somebody said."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Part]


class FunctionCall(Struct, tag="function_call"):
    """A call that the model made."""

    call_id: str
    name: str
    arguments: str = ""


class FunctionOutput(Struct, tag="function_call_output"):
    """What came of it."""

    call_id: str
    output: str | list[Part]


class Reasoning(Struct, tag="reasoning"):
    """The model's reasoning."""

    content: list[ReasoningText | SummaryText] | None = None


Item = Message | FunctionCall | FunctionOutput | Reasoning


def messages(value: str | list[Any], memory: Memory) -> list[dict[str, Any]]:
    """The input as messages. Raises BadRequest."""
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    made: list[dict[str, Any]] = []
    for place, one in enumerate(value):
        where = f"input[{place}]"
        if isinstance(one, dict):
            one = {"type": "message", **one}  # noqa: PLW2901 - messages may leave it out
        _add(made, taken(one, Item, where), where, memory)
    return made


def _add(made: list[dict[str, Any]], item: Item, where: str, memory: Memory) -> None:
    if isinstance(item, FunctionOutput):
        content = _content(item.output, f"{where}.output")
        made.append({"role": "tool", "tool_call_id": item.call_id, "content": content})
    elif isinstance(item, FunctionCall):
        spelt = memory.spelt(item.call_id, item.arguments)
        function = {"name": item.name, "arguments": spelt}
        call = {"id": item.call_id, "type": "function", "function": function}
        _reply(made).setdefault("tool_calls", []).append(call)
    elif isinstance(item, Reasoning):
        text = "".join(part.text for part in item.content or ())
        if text:
            _reply(made, "reasoning", "content", "tool_calls")["reasoning"] = text
    elif item.role == "assistant":
        text = _text(item.content, where)
        _reply(made, "content", "tool_calls")["content"] = text
    else:
        role = "user" if item.role == "user" else "system"
        made.append({"role": role, "content": _content(item.content, f"{where}.content")})


def _reply(made: list[dict[str, Any]], *full: str) -> dict[str, Any]:
    """The assistant's message that goes on, a new one if it has one of `full` already."""
    last = made[-1] if made else None
    if last is None or last["role"] != "assistant" or any(last.get(name) for name in full):
        last = {"role": "assistant", "content": None}
        made.append(last)
    return last


def _text(content: str | list[Part], where: str) -> str:
    if isinstance(content, str):
        return content
    texts = []
    for place, part in enumerate(content):
        if isinstance(part, InputImage):
            at = f"{where}.content[{place}]"
            raise BadRequest(f"{at}: no image in an assistant's message", param=at)
        texts.append(part.refusal if isinstance(part, Refusal) else part.text)
    return "".join(texts)


def _content(content: str | list[Part], where: str) -> str | list[dict[str, Any]]:
    """One text stands as it is: templates then see what a plain string gives."""
    if isinstance(content, str):
        return content
    made = [_part(part, f"{where}[{place}]") for place, part in enumerate(content)]
    if len(made) == 1 and made[0]["type"] == "text":
        return str(made[0]["text"])
    return made


def _part(part: Part, where: str) -> dict[str, Any]:
    if isinstance(part, Refusal):
        return {"type": "text", "text": part.refusal}
    if not isinstance(part, InputImage):
        return {"type": "text", "text": part.text}
    if part.image_url is None:
        at = f"{where}.image_url"
        raise Unsupported(f"{at}: images by their address only, not by a file's id", param=at)
    image = {"url": part.image_url}
    if part.detail is not None:
        image["detail"] = part.detail
    return {"type": "image_url", "image_url": image}


def encoded(made: list[dict[str, Any]]) -> list[msgspec.Raw]:
    """Messages as JSON."""
    return [msgspec.Raw(msgspec.json.encode(message)) for message in made]
