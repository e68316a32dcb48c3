"""Gemini's tools as functions of a chat, and which of them the model may use."""

from typing import Any, Final

from msgspec import Struct

from odradek.proxy.dialects.gemini import fields
from odradek.proxy.dialects.gemini.schema import json_schema
from odradek.proxy.dialects.tools.hosted import CHOICE, Absent
from odradek.proxy.errors import BadRequest

DECLARATIONS: Final = "functionDeclarations"
CONFIG: Final = "toolConfig.functionCallingConfig"
FREE: Final = frozenset({"", "AUTO", "MODE_UNSPECIFIED", "VALIDATED"})
"""Modes in which the model may call a function, or not."""


class Declaration(Struct, rename="camel"):
    """A function of the agent's own."""

    name: str
    description: str | None = None
    parameters: Any = None
    parameters_json_schema: Any = None


class Calling(Struct, rename="camel"):
    """Which functions may be called."""

    mode: str | None = None
    allowed_function_names: list[str] | None = None


class ToolConfig(Struct, rename="camel"):
    """The same, one level up."""

    function_calling_config: Any = None


def functions(listed: list[Any], absent: Absent, most: int) -> list[dict[str, Any]]:
    """Tools as functions; `most` bounds what a request may list. Raises BadRequest."""
    offered = []
    for place, tool in enumerate(listed):
        where = f"tools[{place}]"
        for kind, value in fields.level(tool, where).items():
            if kind != DECLARATIONS:
                if value is not None:
                    absent.leave(kind, f"{where}.{kind}")
                continue
            at = f"{where}.{kind}"
            for n, declaration in enumerate(fields.listed(value, at)):
                offered.append(_function(fields.convert(declaration, Declaration, f"{at}[{n}]")))
                if len(offered) > most:
                    raise BadRequest(f"tools: at most {most}", param="tools")
    return offered


def _function(declaration: Declaration) -> dict[str, Any]:
    schema = declaration.parameters_json_schema
    if schema is None:
        schema = json_schema(declaration.parameters)
    function: dict[str, Any] = {
        "name": declaration.name,
        "parameters": {"type": "object", "properties": {}} if schema is None else schema,
    }
    if declaration.description is not None:
        function["description"] = declaration.description
    return {"type": "function", "function": function}


def chosen(tools: list[dict[str, Any]], config: Any, absent: Absent) -> dict[str, Any]:
    """The fields of a chat: functions, and which of them may be used. Raises BadRequest."""
    calling = Calling()
    if config is not None:
        outer: ToolConfig = fields.convert(config, ToolConfig, "toolConfig")
        if outer.function_calling_config is not None:
            calling = fields.convert(outer.function_calling_config, Calling, CONFIG)
    mode = (calling.mode or "").upper()
    allowed = _allowed(tools, calling.allowed_function_names or [])
    if mode == "NONE":
        choice: Any = "none"
    elif mode == "ANY":
        alone = allowed[0]["function"]["name"] if len(allowed) == 1 else ""
        forced = {"type": "function", "function": {"name": alone}}
        choice = forced if alone and calling.allowed_function_names else "required"
    elif mode in FREE:
        choice = None
    else:
        raise BadRequest(f"{CONFIG}.mode: AUTO, ANY, NONE or VALIDATED", param=f"{CONFIG}.mode")
    if not allowed:
        if mode == "ANY" and absent.names:
            absent.leave(CHOICE, f"{CONFIG}.mode")
        return {}
    return {"tools": allowed} if choice is None else {"tools": allowed, CHOICE: choice}


def _allowed(tools: list[dict[str, Any]], names: list[str]) -> list[dict[str, Any]]:
    """The functions with these names; all of them without any."""
    if not names:
        return tools
    declared = {tool["function"]["name"] for tool in tools}
    for place, name in enumerate(names):
        if name not in declared:
            where = f"{CONFIG}.allowedFunctionNames[{place}]"
            raise BadRequest(f"{where}: no function has this name", param=where)
    return [tool for tool in tools if tool["function"]["name"] in names]
