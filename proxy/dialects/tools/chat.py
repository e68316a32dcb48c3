"""A chat's own tools that are no functions: text tools go there and back, hosted ones stay out.

Nearly all chats have functions only, and pass as they are.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from odradek.proxy.body import NULL, UNREADABLE
from odradek.proxy.capture import Captured
from odradek.proxy.dialects.dialect import Ask, Terms, taken
from odradek.proxy.dialects.memory import Memory
from odradek.proxy.dialects.tools import freeform
from odradek.proxy.dialects.tools.hosted import CHOICE, Absent
from odradek.proxy.dialects.tools.names import Names, Tool
from odradek.proxy.errors import BadRequest

FUNCTION: Final = "function"
CUSTOM: Final = "custom"
SEARCH: Final = "web_search_options"
"""A hosted search of the web, which chats ask for by a field of its own."""


class _Typed(Struct, gc=False):
    type: str = FUNCTION


class _Custom(Struct):
    name: str
    description: str | None = None
    format: freeform.Format | None = None


class _Called(Struct):
    name: str = ""
    input: str = ""


_types: Final = msgspec.json.Decoder(list[_Typed])
_raws: Final = msgspec.json.Decoder(list[Raw])
_dicts: Final = msgspec.json.Decoder(list[dict[str, Any]])
_fields: Final = msgspec.json.Decoder(dict[str, Raw])
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder().decode


class Texts(Struct, frozen=True):
    """The text tools of a request; as an origin it remembers how their calls were spelt."""

    names: Names

    def remember(self, memory: Memory, ask: Ask, reply: Captured) -> None:
        """Note how the engine spelt the arguments of the reply's calls."""
        memory.learn(reply.message, freeform.values(self.names))


Translated = tuple[Texts | None, tuple[str, ...]]
"""What a reply needs, None where there are functions only; and what was left out."""


def translate(fields: dict[str, Raw], terms: Terms) -> Translated:
    """Make functions of a request's text tools, and take out what no engine has.

    Raises BadRequest.
    """
    kinds = _kinds(fields["tools"]) if "tools" in fields else ()
    plain = kinds.count(FUNCTION) == len(kinds) and SEARCH not in fields
    if plain and b'"custom"' not in bytes(fields.get("messages", NULL)):
        return None, ()
    absent = Absent(terms.hosted)
    return _translate(fields, kinds, absent, terms.memory), absent.names


def _translate(
    fields: dict[str, Raw], kinds: Sequence[str], absent: Absent, memory: Memory
) -> Texts | None:
    if fields.get(SEARCH, NULL) != NULL:
        absent.leave(SEARCH, SEARCH)
        del fields[SEARCH]
    names = Names()
    if any(kind != FUNCTION for kind in kinds):
        left = _tools(_raws.decode(fields["tools"]), kinds, names, absent)
        _choose(fields, names, absent, some=bool(left))
        if left:
            fields["tools"] = Raw(_encode(left))
        else:
            for name in ("tools", CHOICE, "parallel_tool_calls"):
                fields.pop(name, None)
    past = _past(fields, names, memory)
    return Texts(names) if past or names.translated else None


def _kinds(tools: Raw) -> list[str]:
    """The types of tools; none where they are not what we can read, so that the engine says so."""
    if tools == NULL:
        return []
    try:
        return [tool.type for tool in _types.decode(tools)]
    except UNREADABLE:
        return []


def _tools(tools: list[Raw], kinds: Sequence[str], names: Names, absent: Absent) -> list[Raw]:
    """The engine's tools: functions as they came."""
    made: list[Raw | Tool] = []
    functions: dict[Tool, dict[str, Any]] = {}
    for place, (raw, kind) in enumerate(zip(tools, kinds, strict=True)):
        if kind == FUNCTION:
            function = _decode(raw).get(FUNCTION)
            name = function.get("name") if isinstance(function, dict) else None
            if isinstance(name, str):
                names.add(Tool(name), {})
            made.append(raw)
        elif kind == CUSTOM:
            where = f"tools[{place}].custom"
            custom: _Custom = taken(_decode(raw).get(CUSTOM), _Custom, where)
            tool = Tool(custom.name, kind="custom")
            functions[tool] = freeform.function(custom.description, custom.format)
            names.add(tool, functions[tool])
            made.append(tool)
        else:
            absent.leave(kind, f"tools[{place}].type")
    names.settle()
    return [_offer(one, names, functions) if isinstance(one, Tool) else one for one in made]


def _offer(tool: Tool, names: Names, functions: dict[Tool, dict[str, Any]]) -> Raw:
    function = {"name": names.name(tool), **functions[tool]}
    return Raw(_encode({"type": FUNCTION, FUNCTION: function}))


def _choose(fields: dict[str, Raw], names: Names, absent: Absent, *, some: bool) -> None:
    """The tool that must be used: as a function, or nobody's choice where it is left out."""
    choice = _decode(fields.get(CHOICE, NULL))
    if not isinstance(choice, dict):
        if choice == "required" and not some:
            absent.leave(CHOICE, CHOICE)
        return
    kind = choice.get("type")
    if kind == CUSTOM:
        name = taken(choice.get(CUSTOM), _Called, "tool_choice.custom").name
        meant = names.named(name, CUSTOM)
        if not meant:
            raise BadRequest(
                "tool_choice.custom.name: no tool has this name", param="tool_choice.custom.name"
            )
        named = {"type": FUNCTION, FUNCTION: {"name": names.name(meant[0])}}
        fields[CHOICE] = Raw(_encode(named))
    elif isinstance(kind, str) and kind not in (FUNCTION, "allowed_tools"):
        absent.leave(kind, "tool_choice.type")
        absent.leave(CHOICE, "tool_choice.type")
        del fields[CHOICE]


def _past(fields: dict[str, Raw], names: Names, memory: Memory) -> bool:
    """Make functions of the text tools that a history calls; tells whether there are some."""
    messages = fields.get("messages", NULL)
    if b'"custom"' not in bytes(messages):
        return False
    try:
        said = _raws.decode(messages)
    except UNREADABLE:
        return False  # not a list: its own error comes
    changed = False
    for place, raw in enumerate(said):
        message = _decode(raw) if b'"custom"' in bytes(raw) else None
        if not isinstance(message, dict) or not isinstance(message.get("tool_calls"), list):
            continue
        calls = message["tool_calls"]
        where = f"messages[{place}].tool_calls"
        made = [_function(call, names, memory, f"{where}[{n}]") for n, call in enumerate(calls)]
        if made != calls:
            changed = True
            said[place] = Raw(_encode({**message, "tool_calls": made}))
    if changed:
        fields["messages"] = Raw(_encode(said))
    return changed


def _function(call: Any, names: Names, memory: Memory, where: str) -> Any:
    if not isinstance(call, dict) or call.get("type") != CUSTOM:
        return call
    custom: _Called = taken(call.get(CUSTOM), _Called, f"{where}.custom")
    call_id = call.get("id")
    arguments = memory.arguments(
        call_id if isinstance(call_id, str) else "", {freeform.ARGUMENT: custom.input}
    )
    function = {"name": names.name(Tool(custom.name, kind="custom")), "arguments": arguments}
    rest = {name: value for name, value in call.items() if name not in ("type", CUSTOM)}
    return {**rest, "type": FUNCTION, FUNCTION: function}


class Calls:
    """Calls of text tools in a reply, whole or as it comes."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._readers: dict[tuple[int, int], freeform.Reader] = {}

    def whole(self, reply: bytes) -> bytes:
        """A reply whose text tools are called as the agent knows them."""
        return self._translated(reply, "message", self._message)

    def chunk(self, data: bytes) -> bytes:
        """The same of a stream's chunk."""
        return self._translated(data, "delta", self._delta)

    def _translated(self, data: bytes, name: str, of: Any) -> bytes:
        fields = _fields.decode(data)
        if fields.get("choices", NULL) == NULL:
            return data
        choices = _dicts.decode(fields["choices"])
        for choice in choices:
            if isinstance(choice.get(name), dict):
                of(choice)
        fields["choices"] = Raw(_encode(choices))
        return _encode(fields)

    def _custom(self, call: Any) -> str:
        """The text tool that a call names, "" for any other."""
        function = call.get(FUNCTION) if isinstance(call, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        tool = self._names.tool(name) if isinstance(name, str) and name else None
        return tool.name if tool is not None and tool.kind == CUSTOM else ""

    def _message(self, choice: dict[str, Any]) -> None:
        calls = choice["message"].get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            if name := self._custom(call):
                arguments = call.pop(FUNCTION).get("arguments")
                text = freeform.read(arguments) if isinstance(arguments, str) else ""
                call |= {"type": CUSTOM, CUSTOM: {"name": name, "input": text}}

    def _delta(self, choice: dict[str, Any]) -> None:
        delta, at = choice["delta"], choice.get("index", 0)
        calls = delta.get("tool_calls")
        if isinstance(calls, list):
            made = [self._piece(at, place, call) for place, call in enumerate(calls)]
            delta["tool_calls"] = [call for call in made if call]
        if choice.get("finish_reason") is not None:
            rest = [
                {"index": index, CUSTOM: {"input": text}}
                for (of, index), reader in self._readers.items()
                if of == at and (text := reader.end())
            ]
            if rest:
                delta["tool_calls"] = [*delta.get("tool_calls", ()), *rest]
        if delta.get("tool_calls") == []:
            del delta["tool_calls"]

    def _piece(self, at: Any, place: int, call: Any) -> Any:
        if not isinstance(call, dict):
            return call
        index = call.get("index", place)
        key = (at if isinstance(at, int) else 0, index if isinstance(index, int) else place)
        custom: dict[str, Any] = {}
        if name := self._custom(call):
            self._readers[key] = freeform.Reader()
            custom["name"] = name
        if (reader := self._readers.get(key)) is None:
            return call
        function = call.get(FUNCTION)
        arguments = function.get("arguments") if isinstance(function, dict) else None
        custom["input"] = reader.feed(arguments) if isinstance(arguments, str) else ""
        if not name and not custom["input"]:
            return None
        kept = {key: value for key, value in call.items() if key not in (FUNCTION, "type")}
        return {**kept, **({"type": CUSTOM} if name else {}), CUSTOM: custom}
