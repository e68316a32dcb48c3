"""A chat completion as a response."""

from typing import Any, Final

import msgspec
from msgspec import Struct

from odradek.proxy.dialects.dialect import ParsedRequest
from odradek.proxy.dialects.responses.compaction import Compacted
from odradek.proxy.dialects.responses.context import context, name
from odradek.proxy.dialects.responses.output import ResponseOutput
from odradek.proxy.dialects.translation import parts
from odradek.proxy.wire import shapes
from odradek.proxy.wire.body import read
from odradek.schemas.http.reply import Choice, EngineUsage

CUT: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Finish reasons of a reply that is not complete, and OpenAI's words for them."""


class _Logprobs(Struct):
    content: list[Any] | None = None


class _Choice(Struct):
    logprobs: _Logprobs | None = None


class _Body(Struct):
    choices: list[_Choice] = []


def output(named: str, request: ParsedRequest) -> ResponseOutput | Compacted:
    """The output of a response with this name, still empty."""
    of = context(request)
    return Compacted(named) if of.compacts else ResponseOutput(named, of.names, packs=of.opaque)


def whole(reply: bytes, request: ParsedRequest) -> dict[str, Any]:
    """A whole reply. Raises what `body.UNREADABLE` lists."""
    regular = shapes.whole(reply, read, request.digest)
    reply, body = regular.data, regular.body
    choice = parts.first(body) or Choice()
    named = name(body.id, request)
    made = output(named, request)
    found = parts.of_message(choice)
    # A chat's list of log probabilities covers all that was sampled, so it is the text's only
    # where there is nothing else.
    known = logprobs(reply, request) if [part.kind for part in found] == ["text"] else []
    for part in found:
        made.add(part, known)
    made.close()
    return response(named, body.created, request, made, choice, body.usage)


def logprobs(data: bytes, request: ParsedRequest) -> list[Any]:
    """The log probabilities of a reply, or of a chunk, for an agent that asked for them."""
    if not context(request).logprobs:
        return []
    choices = msgspec.json.decode(data, type=_Body).choices
    told = choices[0].logprobs if choices else None
    return (told.content or []) if told else []


def response(
    named: str,
    created: Any,
    request: ParsedRequest,
    made: ResponseOutput | Compacted,
    choice: Choice | None = None,
    used: EngineUsage | None = None,
) -> dict[str, Any]:
    """The response; without a choice, one that has only begun."""
    cut = CUT.get(choice.finish_reason or "") if choice else None
    status = "in_progress" if choice is None else "incomplete" if cut else "completed"
    return {
        "id": named,
        "object": "response",
        "created_at": created if isinstance(created, int) else 0,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": {"reason": cut} if cut else None,
        "model": request.model,
        "output": made.told(complete=choice is not None and cut is None),
        **context(request).echo,
        "usage": None if choice is None else usage(used),
    }


def usage(told: EngineUsage | None) -> dict[str, Any]:
    """Tokens as OpenAI counts them."""
    told = told or EngineUsage()
    return {
        "input_tokens": told.prompt,
        "input_tokens_details": {"cached_tokens": told.cached, "cache_write_tokens": 0},
        "output_tokens": told.completion,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": told.prompt + told.completion,
    }
