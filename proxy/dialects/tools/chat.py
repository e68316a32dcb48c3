"""A chat's tools that are not functions: text tools are translated, hosted ones left out.

Nearly all chats have functions only, and pass as they are.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from odradek.proxy.dialects.dialect import ParsedRequest, RequestRules, convert
from odradek.proxy.dialects.replies import ReplyStore
from odradek.proxy.dialects.tools import freeform
from odradek.proxy.dialects.tools.hosted import CHOICE, WORDS, Absent
from odradek.proxy.dialects.tools.names import Names, ToolName
from odradek.proxy.errors import BadRequest
from odradek.proxy.wire.body import NULL, UNREADABLE
from odradek.proxy.wire.reply import CapturedReply

FUNCTION: Final = "function"
CUSTOM: Final = "custom"
ALLOWED: Final = b'"allowed_tools"'
SEARCH: Final = "web_search_options"
"""A hosted search of the web, which chats ask for by a field of its own."""


class _Typed(Struct, gc=False):
    type: str | None = FUNCTION


class _Custom(Struct):
    name: str
    description: str | None = None
    format: freeform.GrammarFormat | None = None


class _Called(Struct, frozen=True):
    name: str = ""
    input: str = ""


class _AllowedTool(Struct):
    """A tool that may be used; some write its name without the object around it."""

    type: str = FUNCTION
    name: str = ""
    function: _Called = _Called()
    custom: _Called = _Called()

    def of(self, names: Names) -> list[ToolName]:
        reference = self.custom if self.type == CUSTOM else self.function
        return names.named(reference.name or self.name, self.type)


class _Allowed(Struct):
    """Which tools may be used."""

    tools: list[_AllowedTool]
    mode: str = "auto"


_types: Final = msgspec.json.Decoder(list[_Typed])
_raws: Final = msgspec.json.Decoder(list[Raw])
_dicts: Final = msgspec.json.Decoder(list[dict[str, Any]])
_fields: Final = msgspec.json.Decoder(dict[str, Raw])
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder().decode


class Texts(Struct, frozen=True):
    """The text tools of a request; as an origin it remembers how their calls were spelt."""

    names: Names

    def remember(self, memory: ReplyStore, request: ParsedRequest, captured: CapturedReply) -> None:
        """Note how the engine spelt the arguments of the reply's calls."""
        memory.learn(captured.reply.message, freeform.values(self.names))


Translated = tuple[Texts | None, tuple[str, ...]]
"""The text tools, which the reply needs, None for functions only; and what was left out."""


def _is_odd(choice: bytes) -> bool:
    """Whether a choice is an object that engines do not take: they take words, or one function."""
    return choice[:1] == b"{" and (ALLOWED in choice or b'"function"' not in choice)


def translate(fields: dict[str, Raw], terms: RequestRules) -> Translated:
    """Make functions of a request's text tools, and take out what no engine has.

    Raises BadRequest.
    """
    kinds = _kinds(fields["tools"]) if "tools" in fields else ()
    plain = kinds.count(FUNCTION) == len(kinds) and SEARCH not in fields
    if kinds and CHOICE in fields:
        plain = plain and not _is_odd(bytes(fields[CHOICE]))
    if plain and bytes(fields.get("messages", NULL)).find(b'"custom"') < 0:
        return None, ()
    absent = Absent(terms.hosted)
    return _translate(fields, kinds, absent, terms.memory), absent.names


def _translate(
    fields: dict[str, Raw], kinds: Sequence[str | None], absent: Absent, memory: ReplyStore
) -> Texts | None:
    if fields.get(SEARCH, NULL) != NULL:
        absent.leave(SEARCH, SEARCH)
        del fields[SEARCH]
    names = Names()
    if kinds and (any(kind != FUNCTION for kind in kinds) or CHOICE in fields):
        left = _tools(_raws.decode(fields["tools"]), kinds, names, absent)
        among = _choose(fields, names, absent, some=bool(left))
        left = [(tool, raw) for tool, raw in left if among is None or tool in among]
        if left:
            fields["tools"] = Raw(_encode([raw for _, raw in left]))
        else:
            for name in ("tools", CHOICE, "parallel_tool_calls"):
                fields.pop(name, None)
    past = _past(fields, names, memory)
    return Texts(names) if past or names.translated else None


def _kinds(tools: Raw) -> list[str | None]:
    """The types of tools; empty if the tools are not readable, so that the engine refuses them."""
    if tools == NULL:
        return []
    try:
        return [tool.type for tool in _types.decode(tools)]
    except UNREADABLE:
        return []


def _tools(
    tools: list[Raw], kinds: Sequence[str | None], names: Names, absent: Absent
) -> list[tuple[ToolName, Raw]]:
    """The engine's tools: functions as they came."""
    offered: list[tuple[ToolName, Raw | None]] = []
    functions: dict[ToolName, dict[str, Any]] = {}
    for place, (raw, kind) in enumerate(zip(tools, kinds, strict=True)):
        if kind not in (FUNCTION, CUSTOM, None):
            absent.leave(kind, f"tools[{place}].type")
            continue
        parsed = _decode(raw)
        if kind == CUSTOM or (kind is None and FUNCTION not in parsed and CUSTOM in parsed):
            custom: _Custom = convert(parsed.get(CUSTOM), _Custom, f"tools[{place}].custom")
            tool = ToolName(custom.name, kind="custom")
            functions[tool] = freeform.function(custom.description, custom.format)
            names.add(tool, functions[tool])
            offered.append((tool, None))
            continue
        function = parsed.get(FUNCTION)
        name = function.get("name") if isinstance(function, dict) else None
        tool = ToolName(name if isinstance(name, str) else "")
        if tool.name:
            names.add(tool, {})
        offered.append((tool, raw if kind else Raw(_encode({**parsed, "type": FUNCTION}))))
    names.settle()
    return [(tool, raw or _offer(tool, names, functions)) for tool, raw in offered]


def _offer(tool: ToolName, names: Names, functions: dict[ToolName, dict[str, Any]]) -> Raw:
    function = {"name": names.name(tool), **functions[tool]}
    return Raw(_encode({"type": FUNCTION, FUNCTION: function}))


def _choose(
    fields: dict[str, Raw], names: Names, absent: Absent, *, some: bool
) -> set[ToolName] | None:
    """Make a function of the tool that must be used; without it, the choice is left out.

    Returns those that may be used, None for all.
    """
    choice = _decode(fields.get(CHOICE, NULL))
    if not isinstance(choice, dict):
        if choice == "required" and not some:
            absent.leave(CHOICE, CHOICE)
        return None
    kind = choice.get("type")
    if kind == "allowed_tools":
        return _allow(fields, choice, names)
    if isinstance(kind, str) and kind in WORDS:
        fields[CHOICE] = Raw(_encode(kind))
    elif kind == CUSTOM:
        name = convert(choice.get(CUSTOM), _Called, "tool_choice.custom").name
        matches = names.named(name, CUSTOM)
        if not matches:
            raise BadRequest(
                "tool_choice.custom.name: no tool has this name", param="tool_choice.custom.name"
            )
        forced = {"type": FUNCTION, FUNCTION: {"name": names.name(matches[0])}}
        fields[CHOICE] = Raw(_encode(forced))
    elif isinstance(kind, str) and kind != FUNCTION:
        absent.leave(kind, "tool_choice.type")
        absent.leave(CHOICE, "tool_choice.type")
        del fields[CHOICE]
    return None


def _allow(fields: dict[str, Raw], choice: dict[str, Any], names: Names) -> set[ToolName] | None:
    """Offer some of the tools only: engines have no choice among several."""
    where = "tool_choice.allowed_tools"
    allowed: _Allowed = convert(choice.get("allowed_tools") or choice, _Allowed, where)
    fields[CHOICE] = Raw(_encode(allowed.mode))
    return {tool for reference in allowed.tools for tool in reference.of(names)}


def _past(fields: dict[str, Raw], names: Names, memory: ReplyStore) -> bool:
    """Make functions of the text tools that a history calls; tells whether there are some."""
    messages = fields.get("messages", NULL)
    if b'"custom"' not in bytes(messages):
        return False
    try:
        history = _raws.decode(messages)
    except UNREADABLE:
        return False  # not a list: its own error comes
    changed = False
    for place, raw in enumerate(history):
        message = _decode(raw) if b'"custom"' in bytes(raw) else None
        if not isinstance(message, dict) or not isinstance(message.get("tool_calls"), list):
            continue
        calls = message["tool_calls"]
        where = f"messages[{place}].tool_calls"
        translated = [
            _function(call, names, memory, f"{where}[{n}]") for n, call in enumerate(calls)
        ]
        if translated != calls:
            changed = True
            history[place] = Raw(_encode({**message, "tool_calls": translated}))
    if changed:
        fields["messages"] = Raw(_encode(history))
    return changed


def _function(call: Any, names: Names, memory: ReplyStore, where: str) -> Any:
    if not isinstance(call, dict) or call.get("type") != CUSTOM:
        return call
    custom: _Called = convert(call.get(CUSTOM), _Called, f"{where}.custom")
    call_id = call.get("id")
    arguments = memory.arguments(
        call_id if isinstance(call_id, str) else "", {freeform.ARGUMENT: custom.input}
    )
    function = {"name": names.name(ToolName(custom.name, kind="custom")), "arguments": arguments}
    rest = {name: value for name, value in call.items() if name not in ("type", CUSTOM)}
    return {**rest, "type": FUNCTION, FUNCTION: function}


class Begun(Struct):
    """A call of a stream."""

    head: dict[str, Any]
    """Its first piece, but for the function."""
    name: str = ""
    """The part of the function's name that has come."""
    reader: freeform.Reader | None = None
    """The reader of a text tool's call, once the agent knows of the call."""
    open: bool = False
    """Whether the agent knows of it."""


class TextToolCalls:
    """Calls of text tools in a reply, whole or as it comes."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._begun: dict[tuple[Any, int], Begun] = {}
        """By choice and index."""

    def whole(self, reply: bytes) -> bytes:
        """A reply whose text tools are called as the agent knows them."""
        return _translated(reply, "message", self._message)

    def chunk(self, data: bytes) -> bytes:
        """The same of a stream's chunk."""
        return _translated(data, "delta", self._delta)

    def _text_tool(self, name: Any) -> str:
        """The text tool that a function stands for, "" for any other."""
        tool = self._names.tool(name) if isinstance(name, str) else ToolName("")
        return tool.name if tool.kind == CUSTOM else ""

    def _message(self, choice: dict[str, Any]) -> None:
        calls = choice["message"].get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            function = call.get(FUNCTION) if isinstance(call, dict) else None
            if isinstance(function, dict) and (name := self._text_tool(function.get("name"))):
                text = freeform.read(_arguments(function))
                del call[FUNCTION]
                call |= {"type": CUSTOM, CUSTOM: {"name": name, "input": text}}

    def _delta(self, choice: dict[str, Any]) -> None:
        delta, at = choice["delta"], choice.get("index", 0)
        calls = delta.get("tool_calls")
        pieces = [
            piece
            for place, call in enumerate(calls if isinstance(calls, list) else ())
            if (piece := self._piece(at, place, call)) is not None
        ]
        if choice.get("finish_reason") is not None:
            pieces += self._ended(at)
        if pieces:
            delta["tool_calls"] = pieces
        else:
            delta.pop("tool_calls", None)

    def _piece(self, at: Any, place: int, call: Any) -> Any:
        """What the agent gets of a piece; None where it must wait for the rest of the name."""
        function = call.get(FUNCTION) if isinstance(call, dict) else None
        if not isinstance(function, dict):
            return call
        index = call.get("index", place)
        begun = self._begun.get((at, index))
        if begun is None:
            head = {name: value for name, value in call.items() if name != FUNCTION}
            begun = self._begun[at, index] = Begun(head)
        name, arguments = function.get("name"), _arguments(function)
        if not begun.open:
            begun.name += name if isinstance(name, str) else ""
            return self._opened(begun, arguments) if arguments else None
        if begun.reader is None:
            return call
        text = begun.reader.feed(arguments)
        return {"index": index, CUSTOM: {"input": text}} if text else None

    def _opened(self, begun: Begun, arguments: str) -> dict[str, Any]:
        """The beginning of a call, whose name is whole."""
        begun.open = True
        name = self._text_tool(begun.name)
        if not name:
            return {**begun.head, FUNCTION: {"name": begun.name, "arguments": arguments}}
        begun.reader = freeform.Reader()
        text = begun.reader.feed(arguments)
        return {**begun.head, "type": CUSTOM, CUSTOM: {"name": name, "input": text}}

    def _ended(self, at: Any) -> list[dict[str, Any]]:
        """The pieces that remain of a choice's calls."""
        pieces = []
        for (of, index), begun in self._begun.items():
            if of != at:
                continue
            if not begun.open:
                pieces.append(self._opened(begun, ""))
            if begun.reader is not None and (text := begun.reader.end()):
                pieces.append({"index": index, CUSTOM: {"input": text}})
        return pieces


def _arguments(function: dict[str, Any]) -> str:
    arguments = function.get("arguments")
    return arguments if isinstance(arguments, str) else ""


def _translated(data: bytes, name: str, change: Callable[[dict[str, Any]], None]) -> bytes:
    """A reply, or a chunk, after `change` has gone over each of its choices."""
    fields = _fields.decode(data)
    if fields.get("choices", NULL) == NULL:
        return data
    choices = _dicts.decode(fields["choices"])
    for choice in choices:
        if isinstance(choice.get(name), dict):
            change(choice)
    fields["choices"] = Raw(_encode(choices))
    return _encode(fields)
