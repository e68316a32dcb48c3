"""A response's input, item by item, as messages of a chat.

The items of one reply (reasoning, message, calls) become one assistant's message again, since a
chat's template would give several messages other tokens than those that were sampled.
"""

from typing import Any, Final

import msgspec
from msgspec import Struct

from odradek.proxy.dialects.dialect import convert
from odradek.proxy.dialects.replies import ReplyStore
from odradek.proxy.dialects.responses import items
from odradek.proxy.dialects.tools import freeform
from odradek.proxy.dialects.tools.hosted import Absent
from odradek.proxy.dialects.tools.names import Names, ToolName
from odradek.proxy.dialects.translation import history, opaque
from odradek.proxy.errors import BadRequest, Unsupported

HOSTED: Final = frozenset({
    "apply_patch_call", "apply_patch_call_output", "code_interpreter_call", "computer_call",
    "computer_call_output", "configuration_update", "file_search_call", "ghost_snapshot",
    "image_generation_call", "mcp_approval_request", "mcp_approval_response", "mcp_call",
    "mcp_list_tools", "program", "program_output", "shell_call", "shell_call_output",
    "tool_search_call", "tool_search_output", "web_search_call",
})  # fmt: skip
"""Items of hosted tools, and notes of a client to itself: no model of ours made or needs them."""
SPELT: Final = {"compaction_summary": "compaction", "context_compaction": "compaction"}
"""Other names of items."""
SUMMARY: Final = "Your own summary of all that came before:\n\n{}"


class Past(Struct, frozen=True):
    """The earlier items that a history refers to."""

    memory: ReplyStore
    names: Names
    absent: Absent


def messages(value: str | list[Any], past: Past) -> list[dict[str, Any]]:
    """The input as messages. Raises BadRequest."""
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    chat: list[dict[str, Any]] = []
    for place, entry in enumerate(value):
        where = f"input[{place}]"
        item = _item(entry, where, past.absent)
        if item is not None:
            _add(chat, item, where, past)
    return chat


def _item(entry: Any, where: str, absent: Absent) -> items.Item | None:
    """An item, None for one that is left out."""
    if isinstance(entry, dict):
        kind = entry.get("type") or "message"  # messages may leave it out
        if isinstance(kind, str) and kind in HOSTED:
            absent.leave(kind, f"{where}.type")
            return None
        entry = {**entry, "type": SPELT.get(kind, kind) if isinstance(kind, str) else kind}
    item: items.Item = convert(entry, items.Item, where)
    return item


def _add(chat: list[dict[str, Any]], item: items.Item, where: str, past: Past) -> None:
    if isinstance(item, items.FunctionOutput | items.CustomOutput):
        content = _content(item.output, f"{where}.output")
        chat.append({"role": "tool", "tool_call_id": item.call_id, "content": content})
    elif isinstance(item, items.FunctionCallItem | items.CustomCall | items.ShellCall):
        history.reply(chat).setdefault("tool_calls", []).append(_call(item, past))
    elif isinstance(item, items.ShellOutput):
        call_id = item.call_id or item.id or ""
        chat.append({"role": "tool", "tool_call_id": call_id, "content": item.output})
    elif isinstance(item, items.Reasoning):
        text = "".join(part.text for part in item.content or ())
        if text := text or opaque.unpack(item.encrypted_content) or "":
            history.reply(chat, "reasoning", "content", "tool_calls")["reasoning"] = text
    elif isinstance(item, items.CompactionItem):
        _sum_up(chat, item, where, past.absent)
    elif isinstance(item, items.AgentMessage):
        texts = [part.text for part in item.content if not isinstance(part, items.Opaque)]
        chat.append({"role": "user", "content": "".join(texts)})
    elif isinstance(item, items.MessageItem):
        _say(chat, item, where)


def _say(chat: list[dict[str, Any]], item: items.MessageItem, where: str) -> None:
    if item.role == "assistant":
        text = _text(item.content, where)
        history.reply(chat, "content", "tool_calls")["content"] = text
    else:
        role = "user" if item.role == "user" else "system"
        chat.append({"role": role, "content": _content(item.content, f"{where}.content")})


def _call(
    item: items.FunctionCallItem | items.CustomCall | items.ShellCall, past: Past
) -> dict[str, Any]:
    """A call as the model made it: of the function that it was given, spelt as it spelt it."""
    call_id = item.call_id or ""
    if isinstance(item, items.ShellCall):
        call_id = call_id or item.id or ""
        name, arguments = "local_shell", past.memory.arguments(call_id, item.action)
    elif isinstance(item, items.CustomCall):
        name = past.names.name(ToolName(item.name, item.namespace or "", "custom"))
        arguments = past.memory.arguments(call_id, {freeform.ARGUMENT: item.input})
    else:
        name = past.names.name(ToolName(item.name, item.namespace or ""))
        arguments = past.memory.spelt(call_id, item.arguments)
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


def _sum_up(
    chat: list[dict[str, Any]], item: items.CompactionItem, where: str, absent: Absent
) -> None:
    text = opaque.unpack(item.encrypted_content)
    if text is None:  # somebody else's
        absent.leave("compaction", f"{where}.encrypted_content")
    else:
        chat.append({"role": "user", "content": SUMMARY.format(text)})


def _text(content: str | list[items.Part], where: str) -> str:
    if isinstance(content, str):
        return content
    texts = []
    for place, part in enumerate(content):
        if isinstance(part, items.InputImage):
            at = f"{where}.content[{place}]"
            raise BadRequest(f"{at}: no image in an assistant's message", param=at)
        texts.append(part.refusal if isinstance(part, items.RefusalPart) else part.text)
    return "".join(texts)


def _content(content: str | list[items.Part], where: str) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    return history.content([_part(part, f"{where}[{n}]") for n, part in enumerate(content)])


def _part(part: items.Part, where: str) -> dict[str, Any]:
    if isinstance(part, items.RefusalPart):
        return {"type": "text", "text": part.refusal}
    if not isinstance(part, items.InputImage):
        return {"type": "text", "text": part.text}
    if part.image_url is None:
        at = f"{where}.image_url"
        raise Unsupported(f"{at}: images by their address only, not by a file's id", param=at)
    image = {"url": part.image_url}
    if part.detail is not None:
        image["detail"] = part.detail
    return {"type": "image_url", "image_url": image}


def encoded(chat: list[dict[str, Any]]) -> list[msgspec.Raw]:
    """Messages as JSON."""
    return [msgspec.Raw(msgspec.json.encode(message)) for message in chat]
