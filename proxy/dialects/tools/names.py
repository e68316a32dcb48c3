"""Names of tools: the engine's function for each tool of an agent, and back.

A function of the agent's own keeps its name, whatever it is. One in a namespace has both names,
and a name that engines would refuse, or that another tool has, ends in a digest of its own. A
tool has the same name in each call of an episode, or its history would change its tokens.
"""

import hashlib
import re
from typing import Any, Final, Literal

from msgspec import Struct

LONGEST: Final = 64
DIGITS: Final = 8
_ILLEGAL: Final = re.compile(r"[^A-Za-z0-9_-]")


class ToolName(Struct, frozen=True):
    """A tool's name as the agent has it."""

    name: str
    namespace: str = ""
    kind: Literal["function", "custom"] = "function"

    @property
    def plain(self) -> bool:
        """Whether it is a function of the agent's own, whose name is not ours to change."""
        return self.kind == "function" and not self.namespace


class Names:
    """Tools by the names of their functions."""

    def __init__(self) -> None:
        self._functions: dict[ToolName, dict[str, Any]] = {}
        self._names: dict[ToolName, str] = {}
        self._tools: dict[str, ToolName] = {}

    def __len__(self) -> int:
        """How many tools there are."""
        return len(self._functions)

    def add(self, tool: ToolName, function: dict[str, Any]) -> None:
        """Offer a tool as this function, which has no name yet; the last word on a tool counts."""
        self._functions[tool] = function

    def introduce(self, first: int, text: str) -> None:
        """Describe all tools from the `first` on, at that one: at each it would cost tokens."""
        functions = list(self._functions.values())[first:]
        if functions and text:
            functions[0]["description"] = "\n\n".join(
                filter(None, (functions[0].get("description"), text))
            )

    def settle(self) -> None:
        """All tools are there: give them their names."""
        counts: dict[str, int] = {}
        for tool in self._functions:
            counts[_preferred(tool)] = counts.get(_preferred(tool), 0) + 1
        for tool in self._functions:
            name = _preferred(tool)
            if counts[name] > 1 and not tool.plain:
                name = _distinct(tool)
            self._names[tool] = name
            self._tools[name] = tool

    def name(self, tool: ToolName) -> str:
        """The engine's name of a tool, also of an earlier one that is not offered now."""
        if (name := self._names.get(tool)) is not None:
            return name
        name = _preferred(tool)
        return _distinct(tool) if name in self._tools and not tool.plain else name

    def tool(self, name: str) -> ToolName:
        """The tool that a call of this function is for; a name that nobody offered is its own."""
        return self._tools.get(name) or ToolName(name)

    def named(self, name: str, kind: str = "", namespace: str = "") -> list[ToolName]:
        """The tools that these words may mean; an empty word means any."""
        return [
            tool
            for tool in self._functions
            if tool.name == name
            and kind in ("", tool.kind)
            and namespace in ("", tool.namespace)
        ]  # fmt: skip

    def within(self, namespace: str) -> list[ToolName]:
        """The tools of a namespace."""
        return [tool for tool in self._functions if tool.namespace == namespace]

    def offered(self, among: set[ToolName] | None = None) -> list[dict[str, Any]]:
        """The engine's functions, all of them or some."""
        return [
            {"type": "function", "function": {"name": self._names[tool], **function}}
            for tool, function in self._functions.items()
            if among is None or tool in among
        ]

    @property
    def translated(self) -> bool:
        """Whether some tool is another thing to the agent than to the engine."""
        return any(not tool.plain for tool in self._functions)


def _preferred(tool: ToolName) -> str:
    name = f"{tool.namespace}__{tool.name}" if tool.namespace else tool.name
    if tool.plain or (len(name) <= LONGEST and name and not _ILLEGAL.search(name)):
        return name
    return _distinct(tool)


def _distinct(tool: ToolName) -> str:
    name = f"{tool.namespace}__{tool.name}" if tool.namespace else tool.name
    digest = hashlib.sha256(f"{tool.kind}/{tool.namespace}/{tool.name}".encode()).hexdigest()
    short = _ILLEGAL.sub("_", name)[: LONGEST - DIGITS - 1]
    return f"{short}_{digest[:DIGITS]}"
