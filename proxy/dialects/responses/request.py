"""A request for a response, as one for a chat completion.

Hosted tools, background work, stored conversations and prompt templates are OpenAI's servers' own:
they are refused by name. Hints that change no reply, such as `prompt_cache_key`, are dropped.
"""

from typing import Any, Final

from msgspec import Raw, Struct, structs

from odradek.proxy import capture
from odradek.proxy.dialects.dialect import taken, typed, unreadable
from odradek.proxy.dialects.memory import Memory
from odradek.proxy.dialects.responses import items
from odradek.proxy.errors import BadRequest, ReplyUnknown, Unsupported

DROPPED: Final = frozenset({
    "include", "max_tool_calls", "metadata", "prompt_cache_key", "prompt_cache_options",
    "prompt_cache_retention", "safety_identifier", "service_tier", "store", "stream_options",
    "truncation", "conversation", "background", "prompt", "moderation", "access_programs",
})  # fmt: skip
"""Fields that the engine does not get."""
HOSTED: Final = ("background", "conversation", "prompt")
"""Fields that ask for what only OpenAI's servers can do."""
EMPTY: Final = (Raw(b"null"), Raw(b"false"))
LOGPROBS: Final = "message.output_text.logprobs"


class Tool(Struct):
    """A tool; functions only."""

    type: str
    name: str = ""
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Choice(Struct):
    """Which tools may be used."""

    type: str
    name: str = ""
    mode: str = "auto"
    tools: list[Tool] = []


class Format(Struct):
    """The form of the reply."""

    type: str = "text"
    name: str = "reply"
    schema: dict[str, Any] = {}
    description: str | None = None
    strict: bool | None = None


class Text(Struct):
    """The same, one level up."""

    format: Format | None = None


class Effort(Struct):
    """How much to reason."""

    effort: str | None = None


class Made(Struct):
    """A chat completion, and what its reply needs."""

    chat: dict[str, Any]
    echo: dict[str, Any]
    chain: tuple[Raw, ...]
    told: int
    logprobs: bool
    store: bool


def chat(fields: dict[str, Raw], memory: Memory) -> Made:
    """The same as a chat completion. Raises BadRequest."""
    try:
        return _chat(dict(fields), memory)
    except capture.UNREADABLE as error:
        raise unreadable(error) from None


def _chat(fields: dict[str, Raw], memory: Memory) -> Made:
    for name in HOSTED:
        if fields.get(name, EMPTY[0]) not in EMPTY:
            raise Unsupported(f"{name}: the engine behind this proxy has none", param=name)
    if typed(fields, "truncation", str | None) not in {None, "disabled"}:
        raise Unsupported("truncation: only disabled", param="truncation")
    echo = _echo(fields)
    include = typed(fields, "include", list[str] | None) or []
    store = typed(fields, "store", bool | None)
    instructions = _pop(fields, "instructions", str | None)
    previous = _pop(fields, "previous_response_id", str | None)
    chain = _chain(previous, memory)
    given = _pop(fields, "input", str | list[Any] | None) or []
    messages = items.encoded(items.messages(given, memory))
    if not chain and not messages:
        raise BadRequest("input: text or items are needed", param="input")
    system = items.encoded([{"role": "system", "content": instructions}] if instructions else [])
    made: dict[str, Any] = {"messages": [*system, *chain, *messages]}
    _tools(fields, made, echo)
    _reply(fields, made)
    rest = {name: value for name, value in fields.items() if name not in DROPPED}
    return Made(
        chat={**rest, **made},
        echo=echo,
        chain=chain,
        told=len(system) + len(chain),
        logprobs=LOGPROBS in include,
        store=store is not False,
    )


def _pop(fields: dict[str, Raw], name: str, kind: Any) -> Any:
    value = typed(fields, name, kind)
    fields.pop(name, None)
    return value


def _echo(fields: dict[str, Raw]) -> dict[str, Any]:
    """What a response says of its request, with OpenAI's defaults."""
    default: dict[str, Any] = {
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "user": None,
    }
    said = {name: fields[name] for name in default if fields.get(name, EMPTY[0]) != EMPTY[0]}
    return {**default, **said}


def _chain(previous: str | None, memory: Memory) -> tuple[Raw, ...]:
    if previous is None:
        return ()
    chain = memory.chain(previous)
    if chain is None:
        raise ReplyUnknown(
            f"Previous response with id '{previous[:100]}' not found: this proxy keeps those of "
            "an episode while it lasts, the newest 64, as far as its memory allows",
            param="previous_response_id",
        )
    return chain


def _tools(fields: dict[str, Raw], made: dict[str, Any], echo: dict[str, Any]) -> None:
    known = [
        taken(one, Tool, f"tools[{place}]")
        for place, one in enumerate(_pop(fields, "tools", list[Any] | None) or ())
    ]
    tools = [_function(tool, f"tools[{place}]") for place, tool in enumerate(known)]
    echo["tools"] = [structs.asdict(tool) for tool in known]
    choice = _pop(fields, "tool_choice", str | dict[str, Any] | None)
    if isinstance(choice, dict):
        wanted = taken(choice, Choice, "tool_choice")
        if wanted.type == "allowed_tools":
            names = {tool.name for tool in wanted.tools}
            tools = [tool for tool in tools if tool["function"]["name"] in names]
            choice = wanted.mode
        elif wanted.type == "function":
            choice = {"type": "function", "function": {"name": wanted.name}}
        else:
            raise Unsupported("tool_choice.type: function", param="tool_choice.type")
    if not tools:
        fields.pop("parallel_tool_calls", None)
        return
    made["tools"] = tools
    if choice is not None:
        made["tool_choice"] = choice


def _function(tool: Tool, where: str) -> dict[str, Any]:
    if tool.type != "function":
        raise Unsupported(f"{where}.type: only functions of your own", param=f"{where}.type")
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.parameters or {}}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _reply(fields: dict[str, Raw], made: dict[str, Any]) -> None:
    """What the reply is to be like."""
    limit = _pop(fields, "max_output_tokens", int | None)
    if limit is not None:
        made["max_completion_tokens"] = limit
    effort = _pop(fields, "reasoning", Effort | None)
    if effort and effort.effort:
        made["reasoning_effort"] = effort.effort
    form = (_pop(fields, "text", Text | None) or Text()).format or Format()
    if form.type == "json_schema":
        schema = {"name": form.name, "schema": form.schema, "strict": form.strict}
        if form.description is not None:
            schema["description"] = form.description
        made["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif form.type != "text":
        made["response_format"] = {"type": form.type}
    if (top := _pop(fields, "top_logprobs", int | None)) is not None:
        made["top_logprobs"] = top
