"""A request for content, as one for a chat completion.

Follows Google's generateContent (v1beta). What only Google's servers can do is left out and named,
if it is a tool or a way to answer, else refused (cached contents, files). Hints that change no
reply, such as `safetySettings` and `labels`, are dropped.
"""

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from odradek.proxy.dialects.dialect import RequestRules, unreadable
from odradek.proxy.dialects.gemini import fields, tools
from odradek.proxy.dialects.gemini.contents import ChatBuilder
from odradek.proxy.dialects.gemini.schema import json_schema
from odradek.proxy.dialects.tools.hosted import Absent
from odradek.proxy.errors import BadRequest, Unsupported
from odradek.proxy.wire.body import UNREADABLE

CONFIG: Final = "generationConfig"
READ: Final = ("contents", "systemInstruction", "tools", "toolConfig", CONFIG)
DROPPED: Final = frozenset({"labels", "model", "safetySettings", "serviceTier", "store"})
"""Fields that are for Google's servers and change no reply of ours."""
EFFORTS: Final = {"minimal": "low"}
"""Levels of thinking that engines have no word for."""
JSON: Final = "application/json"

_decode: Final = msgspec.json.Decoder().decode


class ThinkingConfig(Struct, rename="camel"):
    """Whether, and how much, the model thinks."""

    include_thoughts: bool | None = None
    thinking_budget: int | None = None
    thinking_level: str | None = None


class GenerationConfig(Struct, rename="camel"):
    """How to sample, and what the reply is to be like."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None
    max_output_tokens: int | None = None
    stop_sequences: list[str] | None = None
    seed: int | None = None
    candidate_count: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    response_mime_type: str | None = None
    response_schema: Any = None
    response_json_schema: Any = None
    response_modalities: list[str] | None = None
    thinking_config: Any = None


KNOWN: Final = frozenset(fields.camel(name) for name in GenerationConfig.__struct_fields__)


class GeminiTranslation(Struct):
    """A chat completion, and what its reply needs."""

    chat: dict[str, Any]
    thoughts: bool
    """Whether the reply may show reasoning."""
    dropped: tuple[str, ...]


def chat(raw: dict[str, Raw], terms: RequestRules) -> GeminiTranslation:
    """The same as a chat completion, without its model. Raises BadRequest."""
    absent = Absent(terms.hosted)
    try:
        completion, thoughts = _chat(raw, terms, absent)
    except UNREADABLE as error:
        raise unreadable(error) from None
    return GeminiTranslation(completion, thoughts, absent.names)


def _chat(raw: dict[str, Raw], terms: RequestRules, absent: Absent) -> tuple[dict[str, Any], bool]:
    decoded: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for name, value in raw.items():
        field = fields.camel(name)
        if field in READ:
            decoded[field] = _decode(value)
        elif field == "cachedContent":
            if _decode(value):
                raise Unsupported("cachedContent: this proxy keeps none", param="cachedContent")
        elif field not in DROPPED:
            rest[name] = value
    contents = ChatBuilder(terms.memory, absent)
    contents.instruct(decoded.get("systemInstruction"))
    contents.add(fields.listed(decoded.get("contents"), "contents"))
    messages = contents.finish()
    if not messages:
        raise BadRequest("contents: something is needed", param="contents")
    listed = fields.listed(decoded.get("tools"), "tools")
    functions = tools.functions(listed, absent, terms.limits.tools)
    completion = {
        "messages": messages,
        **tools.chosen(functions, decoded.get("toolConfig"), absent),
    }
    config = decoded.get(CONFIG)
    thoughts = config is not None and _configure(completion, config, absent)
    return {**rest, **completion}, thoughts


def _configure(completion: dict[str, Any], raw: Any, absent: Absent) -> bool:
    """How to sample, in the words of chats; tells whether reasoning is shown."""
    config: GenerationConfig = fields.convert(raw, GenerationConfig, CONFIG)
    for name, value in fields.level(raw, CONFIG).items():
        if name not in KNOWN and value not in (None, False):
            absent.leave(name, f"{CONFIG}.{name}")
    if config.candidate_count not in (None, 1):
        where = f"{CONFIG}.candidateCount"
        raise Unsupported(f"{where}: a reply has one candidate here", param=where)
    for place, modality in enumerate(config.response_modalities or ()):
        if modality.upper() not in ("TEXT", "MODALITY_UNSPECIFIED"):
            where = f"{CONFIG}.responseModalities[{place}]"
            raise Unsupported(f"{where}: text only", param=where)
    values = {
        "temperature": config.temperature,
        "top_p": config.top_p,
        "top_k": None if config.top_k is None else int(config.top_k),
        "max_tokens": config.max_output_tokens,
        "stop": config.stop_sequences or None,
        "seed": config.seed,
        "presence_penalty": config.presence_penalty,
        "frequency_penalty": config.frequency_penalty,
    }
    completion |= {name: value for name, value in values.items() if value is not None}
    _form(completion, config)
    return _think(completion, config)


def _form(completion: dict[str, Any], config: GenerationConfig) -> None:
    """What the reply's text is to be like."""
    schema = config.response_json_schema
    if schema is None and config.response_schema is not None:
        schema = json_schema(config.response_schema)
    kind = config.response_mime_type or (JSON if schema is not None else "text/plain")
    if kind == JSON:
        form = {"name": "reply", "schema": schema, "strict": True}
        completion["response_format"] = (
            {"type": "json_object"}
            if schema is None
            else {"type": "json_schema", "json_schema": form}
        )
    elif kind != "text/plain":
        where = f"{CONFIG}.responseMimeType"
        raise Unsupported(f"{where}: text/plain or {JSON}", param=where)


def _think(completion: dict[str, Any], config: GenerationConfig) -> bool:
    """Whether the reply shows reasoning; templates that can switch it get to know."""
    if config.thinking_config is None:
        return False
    thinking: ThinkingConfig = fields.convert(
        config.thinking_config, ThinkingConfig, f"{CONFIG}.thinkingConfig"
    )
    level = (thinking.thinking_level or "").lower().removeprefix("thinking_level_")
    if level not in ("", "unspecified"):
        completion["reasoning_effort"] = EFFORTS.get(level, level)
    completion["chat_template_kwargs"] = {"enable_thinking": thinking.thinking_budget != 0}
    return thinking.include_thoughts is True
