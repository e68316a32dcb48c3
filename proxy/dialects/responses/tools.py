"""A response's tools as functions of a chat, and which of them the model may use.

Functions and text tools (`custom`), alone or in a namespace, become functions. Every other type is
of OpenAI's servers, or has a schema that only OpenAI's models know: it is left out.
"""

from typing import Any, Final

from msgspec import Struct, structs

from odradek.proxy.dialects.dialect import convert
from odradek.proxy.dialects.tools import freeform
from odradek.proxy.dialects.tools.hosted import CHOICE, WORDS, Absent
from odradek.proxy.dialects.tools.names import Names
from odradek.proxy.dialects.tools.names import ToolName as Called
from odradek.proxy.errors import BadRequest, LimitExceeded

FUNCTION: Final = "function"
CUSTOM: Final = "custom"
NAMESPACE: Final = "namespace"


class OwnTool(Struct):
    """The agent's own tool; others are recognised by their type alone."""

    type: str
    name: str = ""
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    format: freeform.GrammarFormat | None = None
    tools: list[Any] | None = None
    """Those of a namespace."""


class ResponsesTool(Struct):
    """The fields that every tool has."""

    type: str


class ToolReference(Struct):
    """A tool, as a choice names it."""

    type: str
    name: str = ""
    namespace: str = ""


class ResponsesToolChoice(Struct):
    """Which tools may be used."""

    type: str
    name: str = ""
    namespace: str = ""
    mode: str = "auto"
    tools: list[ToolReference] = []


class RequestTools:
    """The tools of a request.

    Args:
        absent: Takes in what no engine has.
        most: How many there may be, those of namespaces and those that are left out among them.
    """

    def __init__(self, absent: Absent, most: int) -> None:
        self.names: Final = Names()
        self.echo: list[dict[str, Any]] = []
        """What a response says of them."""
        self._absent = absent
        self._within: dict[str, list[str]] = {}
        """Namespaces, and those within them."""
        self._most = most
        self._listed = 0

    def add(self, listed: list[Any], where: str) -> None:
        """Take in a list of them. Raises BadRequest."""
        for place, entry in enumerate(listed):
            tool = self._tool(entry, f"{where}[{place}]", "")
            if tool is not None:
                self.echo.append(_echo(tool, entry))

    def _tool(self, entry: Any, where: str, namespace: str) -> OwnTool | None:
        self._listed += 1
        if self._listed > self._most:
            raise LimitExceeded(f"tools: at most {self._most}", param="tools")
        kind = convert(entry, ResponsesTool, where).type
        if kind not in (FUNCTION, CUSTOM, NAMESPACE):
            self._absent.leave(kind, f"{where}.type")
            return None
        tool: OwnTool = convert(entry, OwnTool, where)
        if not tool.name:
            raise BadRequest(f"{where}.name: a tool needs a name", param=f"{where}.name")
        if kind == NAMESPACE:
            before = len(self.names)
            own = f"{namespace}__{tool.name}" if namespace else tool.name
            for outer, inner in self._within.items():
                if namespace == outer or namespace in inner:
                    inner.append(own)
            self._within.setdefault(own, [])
            for place, member in enumerate(tool.tools or ()):
                self._tool(member, f"{where}.tools[{place}]", own)
            self.names.introduce(
                before, f"{tool.name}: {tool.description}" if tool.description else ""
            )
        elif kind == CUSTOM:
            function = freeform.function(tool.description, tool.format)
            self.names.add(Called(tool.name, namespace, "custom"), function)
        else:
            self.names.add(Called(tool.name, namespace), _function(tool))
        return tool

    def chosen(self, choice: Any) -> dict[str, Any]:
        """The fields of a chat: functions, and which may be used. Raises BadRequest."""
        among: set[Called] | None = None
        if isinstance(choice, dict):
            parsed: ResponsesToolChoice = convert(choice, ResponsesToolChoice, CHOICE)
            if parsed.type == "allowed_tools":
                among, choice = self._allowed(parsed), parsed.mode
            elif parsed.type in WORDS:
                choice = parsed.type
            else:
                choice = self._forced(parsed)
        offered = self.names.offered(among)
        if not offered:
            if choice == "required" and self._absent.names:
                self._absent.leave(CHOICE, CHOICE)
            return {}
        return {"tools": offered} if choice is None else {"tools": offered, CHOICE: choice}

    def _allowed(self, choice: ResponsesToolChoice) -> set[Called]:
        among: set[Called] = set()
        for place, tool in enumerate(choice.tools):
            if tool.type == NAMESPACE:
                for namespace in (tool.name, *self._within.get(tool.name, ())):
                    among.update(self.names.within(namespace))
            elif tool.type in (FUNCTION, CUSTOM):
                among.update(self.names.named(tool.name, tool.type, tool.namespace))
            else:
                self._absent.leave(tool.type, f"tool_choice.tools[{place}].type")
        return among

    def _forced(self, choice: ResponsesToolChoice) -> Any:
        if choice.type not in (FUNCTION, CUSTOM):
            # The model cannot be made to use what is not there: it may use what is.
            self._absent.leave(choice.type, "tool_choice.type")
            self._absent.leave(CHOICE, "tool_choice.type")
            return None
        matches = self.names.named(choice.name, choice.type, choice.namespace)
        if not matches:
            raise BadRequest("tool_choice.name: no tool has this name", param="tool_choice.name")
        return {"type": FUNCTION, FUNCTION: {"name": self.names.name(matches[0])}}


def _function(tool: OwnTool) -> dict[str, Any]:
    function: dict[str, Any] = {"parameters": tool.parameters or {}}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return function


def _echo(tool: OwnTool, entry: Any) -> dict[str, Any]:
    """A function with all fields that OpenAI's clients look for; others as they came."""
    if tool.type != FUNCTION:
        return dict(entry)
    shown = ("type", "name", "description", "parameters", "strict")
    return {name: value for name, value in structs.asdict(tool).items() if name in shown}
