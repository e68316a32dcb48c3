"""A request for a response, as one for a chat completion.

Background work, stored conversations and prompt templates are OpenAI's servers' own: they are
refused by name. Hints that change no reply, such as `prompt_cache_key`, are dropped.
"""

from typing import Any, Final

from msgspec import Raw, Struct

from odradek.proxy.dialects.dialect import RequestRules, typed, unreadable
from odradek.proxy.dialects.replies import ReplyStore
from odradek.proxy.dialects.responses import compaction, history
from odradek.proxy.dialects.responses.tools import RequestTools
from odradek.proxy.dialects.tools.hosted import Absent
from odradek.proxy.dialects.tools.names import Names
from odradek.proxy.errors import BadRequest, ReplyUnknown, Unsupported
from odradek.proxy.wire.body import UNREADABLE

DROPPED: Final = frozenset({
    "access_programs", "background", "client_metadata", "context_management", "conversation",
    "image", "include", "max_tool_calls", "metadata", "moderation", "prompt", "prompt_cache_key",
    "prompt_cache_options", "prompt_cache_retention", "safety_identifier", "service_tier", "store",
    "stream_options", "truncation",
})  # fmt: skip
"""Fields that the engine does not get."""
HOSTED: Final = ("background", "conversation", "prompt")
"""Fields that ask for what only OpenAI's servers can do."""
EMPTY: Final = (Raw(b"null"), Raw(b"false"))
LOGPROBS: Final = "message.output_text.logprobs"
OPAQUE: Final = "reasoning.encrypted_content"


class TextFormat(Struct):
    """The form of the reply."""

    type: str = "text"
    name: str = "reply"
    schema: dict[str, Any] = {}
    description: str | None = None
    strict: bool | None = None


class TextConfig(Struct):
    """The same, one level up."""

    format: TextFormat | None = None


class Effort(Struct):
    """How much to reason."""

    effort: str | None = None


class ResponsesTranslation(Struct):
    """A chat completion, and what its reply needs."""

    chat: dict[str, Any]
    echo: dict[str, Any]
    chain: tuple[Raw, ...]
    preceding: int
    logprobs: bool
    store: bool
    names: Names
    opaque: bool
    """Whether reasoning goes out in a form that the client hands back."""
    compacts: bool
    """Whether the reply is a summary that takes the place of the conversation."""
    dropped: tuple[str, ...]


def chat(
    fields: dict[str, Raw], terms: RequestRules, *, compact: bool = False
) -> ResponsesTranslation:
    """The same as a chat completion. Raises BadRequest.

    Args:
        fields: The request's.
        terms: On which it is taken.
        compact: Whether a summary is wanted in any case.
    """
    try:
        return _chat(dict(fields), terms, compact=compact)
    except UNREADABLE as error:
        raise unreadable(error) from None


def _chat(fields: dict[str, Raw], terms: RequestRules, *, compact: bool) -> ResponsesTranslation:
    for name in HOSTED:
        if fields.get(name, EMPTY[0]) not in EMPTY:
            raise Unsupported(f"{name}: the engine behind this proxy has none", param=name)
    if typed(fields, "truncation", str | None) not in {None, "disabled"}:
        raise Unsupported("truncation: only disabled", param="truncation")
    absent = Absent(terms.hosted)
    echo = _echo(fields)
    include = typed(fields, "include", list[str] | None) or []
    store = typed(fields, "store", bool | None)
    instructions = _pop(fields, "instructions", str | None)
    previous = _pop(fields, "previous_response_id", str | None)
    chain = _chain(previous, terms.memory)
    new_input = _pop(fields, "input", str | list[Any] | None) or []
    tools = _tools(fields, new_input, RequestTools(absent, terms.limits.tools))
    past = history.Past(terms.memory, tools.names, absent)
    messages = history.encoded(history.messages(new_input, past))
    if not chain and not messages:
        raise BadRequest("input: text or items are needed", param="input")
    compacts = compact or compaction.is_requested(new_input)
    summary_prompt = history.encoded([compaction.PROMPT] if compacts else [])
    system = history.encoded([{"role": "system", "content": instructions}] if instructions else [])
    completion: dict[str, Any] = {"messages": [*system, *chain, *messages, *summary_prompt]}
    echo["tools"] = tools.echo
    completion |= tools.chosen(_pop(fields, "tool_choice", str | dict[str, Any] | None))
    if "tools" not in completion:
        fields.pop("parallel_tool_calls", None)
    elif compacts:
        completion["tool_choice"] = "none"
    _reply(fields, completion)
    rest = {name: value for name, value in fields.items() if name not in DROPPED}
    return ResponsesTranslation(
        chat={**rest, **completion},
        echo=echo,
        chain=chain,
        preceding=len(system) + len(chain),
        logprobs=LOGPROBS in include,
        store=store is not False and not compacts,
        names=tools.names,
        opaque=OPAQUE in include,
        compacts=compacts,
        dropped=absent.names,
    )


def _tools(fields: dict[str, Raw], new_input: str | list[Any], tools: RequestTools) -> RequestTools:
    """All tools: those of the request, and those among its items, as Codex sends them."""
    tools.add(_pop(fields, "tools", list[Any] | None) or [], "tools")
    for place, item in enumerate(new_input if isinstance(new_input, list) else ()):
        listed = item.get("tools") if isinstance(item, dict) else None
        if listed and item.get("type") == "additional_tools" and isinstance(listed, list):
            tools.add(listed, f"input[{place}].tools")
    tools.names.settle()
    return tools


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
    stated = {name: fields[name] for name in default if fields.get(name, EMPTY[0]) != EMPTY[0]}
    return {**default, **stated}


def _chain(previous: str | None, memory: ReplyStore) -> tuple[Raw, ...]:
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


def _reply(fields: dict[str, Raw], completion: dict[str, Any]) -> None:
    """What the reply is to be like."""
    limit = _pop(fields, "max_output_tokens", int | None)
    if limit is not None:
        completion["max_completion_tokens"] = limit
    effort = _pop(fields, "reasoning", Effort | None)
    if effort and effort.effort:
        completion["reasoning_effort"] = effort.effort
    form = (_pop(fields, "text", TextConfig | None) or TextConfig()).format or TextFormat()
    if form.type == "json_schema":
        schema = {"name": form.name, "schema": form.schema, "strict": form.strict}
        if form.description is not None:
            schema["description"] = form.description
        completion["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif form.type != "text":
        completion["response_format"] = {"type": form.type}
    if (top := _pop(fields, "top_logprobs", int | None)) is not None:
        completion["top_logprobs"] = top
