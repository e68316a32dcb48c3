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


def output(response_id: str, request: ParsedRequest) -> ResponseOutput | Compacted:
    """The output of a response with this name, still empty."""
    origin = context(request)
    return (
        Compacted(response_id)
        if origin.compacts
        else ResponseOutput(response_id, origin.names, packs=origin.opaque)
    )


def whole(reply: bytes, request: ParsedRequest) -> dict[str, Any]:
    """A whole reply. Raises what `body.UNREADABLE` lists."""
    regular = shapes.whole(reply, read, request.digest)
    reply, body = regular.data, regular.body
    choice = parts.first(body) or Choice()
    response_id = name(body.id, request)
    built = output(response_id, request)
    reply_parts = parts.of_message(choice)
    # A chat's list of log probabilities covers all that was sampled, so it is the text's only
    # where there is nothing else.
    text_logprobs = (
        logprobs(reply, request) if [part.kind for part in reply_parts] == ["text"] else []
    )
    for part in reply_parts:
        built.add(part, text_logprobs)
    built.close()
    return response(response_id, body.created, request, built, choice, body.usage)


def logprobs(data: bytes, request: ParsedRequest) -> list[Any]:
    """The log probabilities of a reply, or of a chunk, for an agent that asked for them."""
    if not context(request).logprobs:
        return []
    choices = msgspec.json.decode(data, type=_Body).choices
    choice_logprobs = choices[0].logprobs if choices else None
    return (choice_logprobs.content or []) if choice_logprobs else []


def response(
    response_id: str,
    created: Any,
    request: ParsedRequest,
    built: ResponseOutput | Compacted,
    choice: Choice | None = None,
    used: EngineUsage | None = None,
) -> dict[str, Any]:
    """The response; without a choice, one that has only begun."""
    cut = CUT.get(choice.finish_reason or "") if choice else None
    status = "in_progress" if choice is None else "incomplete" if cut else "completed"
    return {
        "id": response_id,
        "object": "response",
        "created_at": created if isinstance(created, int) else 0,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": {"reason": cut} if cut else None,
        "model": request.model,
        "output": built.as_json(complete=choice is not None and cut is None),
        **context(request).echo,
        "usage": None if choice is None else usage(used),
    }


def usage(used: EngineUsage | None) -> dict[str, Any]:
    """Tokens as OpenAI counts them."""
    used = used or EngineUsage()
    return {
        "input_tokens": used.prompt,
        "input_tokens_details": {"cached_tokens": used.cached, "cache_write_tokens": 0},
        "output_tokens": used.completion,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": used.prompt + used.completion,
    }
