"""A request for a message, as one for a chat completion.

Follows Anthropic's Messages API (2023-06-01). What only Anthropic's own servers can do is left out
and named, if it is a tool or of one (`mcp_servers`, `container`) or keeps a conversation there
(`compaction`, a new `thread`), else refused (files, batches, an old `thread`). Hints that change no
reply, such as `cache_control` and `service_tier`, are dropped.
"""

from typing import Any, Final, Literal

import msgspec
from msgspec import Raw, Struct

from odradek.proxy.dialects.dialect import RequestRules, convert, typed, unreadable
from odradek.proxy.dialects.messages import tools
from odradek.proxy.dialects.replies import ReplyStore
from odradek.proxy.dialects.tools.hosted import Absent
from odradek.proxy.dialects.translation import history
from odradek.proxy.errors import BadRequest, Unsupported
from odradek.proxy.wire.body import UNREADABLE

DROPPED: Final = frozenset({
    "anthropic_beta", "betas", "cache_control", "context_management", "diagnostics",
    "fallback_credit_token", "inference_geo", "service_tier", "speed", "user_profile_id",
    "workspace_id",
})  # fmt: skip
"""Fields that are for Anthropic's servers and change no reply of ours."""
HOSTED: Final = ("compaction", "container", "mcp_servers", "thread")
"""Fields of tools, and of ways to keep a conversation, that only they have."""
CONTINUE: Final = "continue"
"""The type of a thread whose earlier messages only they hold."""
REFUSED: Final = ("fallbacks",)
"""Other fields that ask for what only they can do."""


class TextBlock(Struct, tag="text"):
    """Text."""

    text: str


class Source(Struct):
    """Where an image is."""

    type: str
    media_type: str = ""
    data: str = ""
    url: str = ""


class Image(Struct, tag="image"):
    """An image, by reference or inline."""

    source: Source


class Document(Struct, tag="document"):
    """A document; text only."""

    source: Source


class SearchResult(Struct, tag="search_result"):
    """A result of the agent's own search."""

    content: list[TextBlock] = []
    title: str = ""
    source: str = ""


class ToolUse(Struct, tag="tool_use"):
    """A call that the model made."""

    id: str
    name: str
    input: dict[str, Any] = {}


Shown = TextBlock | Image | Document | SearchResult
"""What a user, or a tool, may show."""


class ToolResult(Struct, tag="tool_result"):
    """The result of a call."""

    tool_use_id: str
    content: str | list[Shown] | None = None


class ThinkingBlock(Struct, tag="thinking"):
    """The model's reasoning."""

    thinking: str = ""


class CompactionBlock(Struct, tag="compaction"):
    """A summary of the conversation before it."""

    content: str | None = None


class Redacted(Struct, tag="redacted_thinking"):
    """Reasoning that nobody here can read."""


Block = Shown | ToolUse | ToolResult | ThinkingBlock | Redacted | CompactionBlock


class InputMessage(Struct):
    """A message of the history."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Block]


class ThinkingMode(Struct):
    """Whether and how the model thinks."""

    type: str = "disabled"


class Metadata(Struct):
    """The user that the agent calls for."""

    user_id: str | None = None


class OutputFormat(Struct):
    """The form of the reply."""

    type: str
    schema: dict[str, Any] = {}


class OutputConfig(Struct):
    """The form of the reply, and the effort for it."""

    format: OutputFormat | None = None
    effort: str | None = None


class Thread(Struct):
    """Where the conversation is held."""

    type: str | None = None


class MessagesTranslation(Struct):
    """A chat completion, and what its reply needs."""

    chat: dict[str, Any]
    thinking: bool
    """Whether the reply may show reasoning."""
    dropped: tuple[str, ...]


def chat(fields: dict[str, Raw], terms: RequestRules) -> MessagesTranslation:
    """The same as a chat completion. Raises BadRequest."""
    absent = Absent(terms.hosted)
    try:
        completion, thinking = _chat(dict(fields), terms.memory, absent)
    except UNREADABLE as error:
        raise unreadable(error) from None
    return MessagesTranslation(completion, thinking, absent.names)


def _chat(
    fields: dict[str, Raw], memory: ReplyStore, absent: Absent
) -> tuple[dict[str, Any], bool]:
    for name in REFUSED:
        if fields.pop(name, EMPTY[0]) not in EMPTY:
            raise Unsupported(f"{name}: the engine behind this proxy has none", param=name)
    if "thread" in fields and _continues(fields["thread"]):
        raise Unsupported(
            "thread: this proxy holds no conversation: send all of its messages", param="thread"
        )
    for name in HOSTED:
        if fields.pop(name, EMPTY[0]) not in EMPTY:
            absent.leave(name, name)
    messages = _history(fields, memory, absent)
    functions = tools.functions(_field(fields, "tools", list[Any] | None) or [], absent)
    choice = _field(fields, "tool_choice", tools.MessagesToolChoice | None)
    completion: dict[str, Any] = {"messages": messages, **tools.chosen(functions, choice, absent)}
    thinking = _thinking(fields, completion)
    _output(fields, completion)
    if stop := _field(fields, "stop_sequences", list[str] | None):
        completion["stop"] = stop
    user = _field(fields, "metadata", Metadata | None)
    if user and user.user_id:
        completion["user"] = user.user_id
    if messages and messages[-1]["role"] == "assistant":
        # The agent has begun the reply: the model is to go on in the same message.
        completion |= {"continue_final_message": True, "add_generation_prompt": False}
    rest = {name: value for name, value in fields.items() if name not in DROPPED}
    return {**rest, **completion}, thinking


def _history(fields: dict[str, Raw], memory: ReplyStore, absent: Absent) -> list[dict[str, Any]]:
    """All messages so far, the system's first."""
    if "messages" not in fields:
        raise BadRequest("messages: Field required", param="messages")
    messages = _system(_field(fields, "system", str | list[TextBlock] | None))
    for place, entry in enumerate(_field(fields, "messages", list[Any])):
        where = f"messages.{place}"
        message = _present(entry, where, absent)
        if message is not None:
            messages += _message(convert(message, InputMessage, where), memory, where)
    return messages


SERVED: Final = frozenset({
    "container_upload", "mcp_tool_use", "server_tool_use", "tool_reference",
})  # fmt: skip
"""Blocks of hosted tools; those of their results end in `_tool_result`."""
EMPTY: Final = (Raw(b"null"), Raw(b"[]"), Raw(b"{}"), Raw(b'"default"'))
"""Values of such fields that ask for nothing, or for a model's default."""


def _continues(thread: Raw) -> bool:
    """Whether a thread goes on from earlier messages that Anthropic's servers hold."""
    try:
        return msgspec.json.decode(thread, type=Thread).type == CONTINUE
    except UNREADABLE:
        return False


def _field(fields: dict[str, Raw], name: str, kind: Any) -> Any:
    """Take a field out. Raises BadRequest, which names it."""
    value = typed(fields, name, kind)
    fields.pop(name, None)
    return value


def _system(system: str | list[TextBlock] | None) -> list[dict[str, Any]]:
    if not system:
        return []
    text = system if isinstance(system, str) else "\n".join(block.text for block in system)
    return [{"role": "system", "content": text}]


def _present(message: Any, where: str, absent: Absent) -> Any:
    """A message without blocks of hosted tools; None where it had no others."""
    blocks = message.get("content") if isinstance(message, dict) else None
    if not isinstance(blocks, list):
        return message
    remaining = [
        block for n, block in enumerate(blocks) if _is_ours(block, f"{where}.content.{n}", absent)
    ]
    for place, block in enumerate(remaining):
        if block.__class__ is dict and block.get("type") == "tool_result":
            remaining[place] = _present(block, f"{where}.content.{place}", absent) or {
                **block, "content": "",
            }  # fmt: skip
    return {**message, "content": remaining} if remaining or not blocks else None


def _is_ours(block: Any, where: str, absent: Absent) -> bool:
    kind = block.get("type") if isinstance(block, dict) else None
    if not isinstance(kind, str) or not (kind in SERVED or kind.endswith("_tool_result")):
        return True
    absent.leave(kind, f"{where}.type")
    return False


def _message(message: InputMessage, memory: ReplyStore, where: str) -> list[dict[str, Any]]:
    role = "system" if message.role == "developer" else message.role
    if isinstance(message.content, str):
        return [{"role": role, "content": message.content}]
    if role == "assistant":
        return [_assistant(message.content, memory, where)]
    return _user(message.content, role, where)


def _assistant(blocks: list[Block], memory: ReplyStore, where: str) -> dict[str, Any]:
    texts: list[str] = []
    thoughts: list[str] = []
    calls = []
    for place, block in enumerate(blocks):
        if isinstance(block, TextBlock):
            texts.append(block.text)
        elif isinstance(block, CompactionBlock):
            texts.append(block.content or "")
        elif isinstance(block, ThinkingBlock):
            thoughts.append(block.thinking)
        elif isinstance(block, ToolUse):
            spelt = memory.arguments(block.id, block.input)
            function = {"name": block.name, "arguments": spelt}
            calls.append({"id": block.id, "type": "function", "function": function})
        elif not isinstance(block, Redacted):
            raise _misplaced(f"{where}.content.{place}", "assistant")
    message: dict[str, Any] = {"role": "assistant", "content": "".join(texts) if texts else None}
    if thoughts:
        message["reasoning"] = "".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return message


def _user(blocks: list[Block], role: str, where: str) -> list[dict[str, Any]]:
    """A user's message: results of tools stand as messages of their own, in order."""
    messages: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    for place, block in enumerate(blocks):
        at = f"{where}.content.{place}"
        if isinstance(block, ToolResult):
            messages += _shown_message(role, parts)
            parts = []
            messages.append({
                "role": "tool",
                "tool_call_id": block.tool_use_id,
                "content": _result(block.content, at),
            })  # fmt: skip
        elif isinstance(block, Shown):
            parts.append(_part(block, at))
        else:
            raise _misplaced(at, role)
    return messages + _shown_message(role, parts)


def _misplaced(where: str, role: str) -> BadRequest:
    return BadRequest(f"{where}: no such block in a message of the {role}", param=where)


def _shown_message(role: str, parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"role": role, "content": history.content(parts)}] if parts else []


def _result(content: str | list[Shown] | None, where: str) -> Any:
    if not isinstance(content, list):
        return content or ""
    return history.content([_part(block, where) for block in content]) if content else ""


def _part(block: Shown, where: str) -> dict[str, Any]:
    if isinstance(block, TextBlock):
        return {"type": "text", "text": block.text}
    if isinstance(block, SearchResult):
        head = " ".join(filter(None, (block.title, block.source and f"<{block.source}>")))
        texts = [head, *(text.text for text in block.content)]
        return {"type": "text", "text": "\n".join(filter(None, texts))}
    source = block.source
    if isinstance(block, Document):
        if source.type != "text":
            raise Unsupported(
                f"{where}.source.type: documents as text only", param=f"{where}.source.type"
            )
        return {"type": "text", "text": source.data}
    if source.type == "url":
        return {"type": "image_url", "image_url": {"url": source.url}}
    if source.type == "base64":
        url = f"data:{source.media_type};base64,{source.data}"
        return {"type": "image_url", "image_url": {"url": url}}
    raise Unsupported(f"{where}.source.type: url or base64", param=f"{where}.source.type")


def _thinking(fields: dict[str, Raw], completion: dict[str, Any]) -> bool:
    """Whether the reply shows reasoning; a template that can switch it gets an argument."""
    mode = _field(fields, "thinking", ThinkingMode | None)
    if mode is None:
        return False
    thinks = bool(mode.type != "disabled")
    kwargs = _field(fields, "chat_template_kwargs", dict[str, Any] | None) or {}
    completion["chat_template_kwargs"] = {"enable_thinking": thinks, **kwargs}
    return thinks


def _output(fields: dict[str, Raw], completion: dict[str, Any]) -> None:
    output = _field(fields, "output_config", OutputConfig | None) or OutputConfig()
    form = _field(fields, "output_format", OutputFormat | None) or output.format
    if output.effort is not None:
        completion["reasoning_effort"] = output.effort
    if form is None:
        return
    if form.type != "json_schema":
        raise Unsupported("output_format.type: json_schema", param="output_format.type")
    completion["response_format"] = {
        "type": "json_schema",
        "json_schema": {"name": "reply", "schema": form.schema, "strict": True},
    }
