"""A message's tools as functions of a chat, and which of them the model may use.

Anthropic's own tools come in two kinds. Those that the client runs have no schema in the request,
since Claude knows it: a shell, an editor and a memory get one here and are called like any other.
Those that its servers run, and a screen to be clicked at, are left out.
"""

import re
from typing import Any, Final, Literal

from msgspec import Struct, structs

from odradek.proxy.dialects.dialect import convert
from odradek.proxy.dialects.tools.hosted import CHOICE, Absent

_VERSION: Final = re.compile(r"_\d{8}\Z")


def _schema(required: tuple[str, ...], **properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*required]}


def _text(description: str) -> dict[str, Any]:
    return {"type": "string", "description": description}


def _either(*words: str) -> dict[str, Any]:
    return {"type": "string", "enum": [*words]}


_EDITED: Final = {
    "path": _text("Absolute path of a file or folder."),
    "file_text": _text("The new file's text, for create."),
    "old_str": _text("The text to replace, for str_replace; it occurs once."),
    "new_str": _text("The text in its place."),
    "insert_line": {"type": "integer", "description": "Insert behind this line, 0 is the top."},
    "insert_text": _text("The text to insert."),
    "view_range": {
        "type": "array",
        "items": {"type": "integer"},
        "description": "First and last line to view, from 1; -1 is the end.",
    },
}
RUN_BY_CLIENTS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "bash": (
        "Runs a command in a shell that lives as long as the conversation.",
        _schema(
            (),
            command=_text("The command."),
            restart={"type": "boolean", "description": "Start the shell anew instead."},
        ),
    ),
    "text_editor": (
        "Views, makes and changes files.",
        _schema(
            ("command", "path"),
            command=_either("view", "create", "str_replace", "insert"),
            **_EDITED,
        ),
    ),
    "memory": (
        "Keeps notes between conversations, as files below /memories.",
        _schema(
            ("command",),
            command=_either("view", "create", "str_replace", "insert", "delete", "rename"),
            **_EDITED,
            old_path=_text("What to rename."),
            new_path=_text("Its new path."),
        ),
    ),
}
"""The description and the schema of a tool without a schema, by its type without the version."""


class MessagesTool(Struct):
    """The fields that every tool may have."""

    type: str | None = None


class ClientTool(Struct):
    """A tool that the client runs."""

    name: str
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] = {}
    strict: bool | None = None


class MessagesToolChoice(Struct):
    """Which tools may be used."""

    type: Literal["auto", "any", "tool", "none"]
    name: str = ""
    disable_parallel_tool_use: bool = False

    def is_lost(self, names: list[str]) -> bool:
        """Whether it asks for a tool that is not among these."""
        return self.name not in names if self.type == "tool" else self.type == "any" and not names


def functions(listed: list[Any], absent: Absent) -> list[dict[str, Any]]:
    """Tools as functions. Raises BadRequest."""
    offered = []
    for place, tool in enumerate(listed):
        where = f"tools.{place}"
        kind = convert(tool, MessagesTool, where).type or "custom"
        own = _VERSION.sub("", kind)
        if kind != "custom" and (own == kind or own not in RUN_BY_CLIENTS):
            absent.leave(kind, f"{where}.type")
            continue
        offered.append(_function(convert(tool, ClientTool, where), own))
    return offered


def _function(tool: ClientTool, kind: str) -> dict[str, Any]:
    description, schema = RUN_BY_CLIENTS.get(kind, (None, tool.input_schema))
    function: dict[str, Any] = {"name": tool.name, "parameters": schema}
    if (text := tool.description or description) is not None:
        function["description"] = text
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def chosen(
    tools: list[dict[str, Any]], choice: MessagesToolChoice | None, absent: Absent
) -> dict[str, Any]:
    """The fields of a chat: functions, and which of them may be used."""
    names = [tool["function"]["name"] for tool in tools]
    if choice is not None and absent.names and choice.is_lost(names):
        # The model cannot be made to use what is not there: it may use what is.
        absent.leave(CHOICE, CHOICE)
        choice = structs.replace(choice, type="auto")
    if not tools:
        return {}
    if choice is None:
        return {"tools": tools}
    function = {"type": "function", "function": {"name": choice.name}}
    word = {"any": "required", "tool": function}.get(choice.type, choice.type)
    serial = {"parallel_tool_calls": False} if choice.disable_parallel_tool_use else {}
    return {"tools": tools, CHOICE: word, **serial}
