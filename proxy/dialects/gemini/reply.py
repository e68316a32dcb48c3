"""A chat completion as generated content."""

from typing import Any, Final

from odradek.proxy.dialects.dialect import ParsedRequest
from odradek.proxy.dialects.replies import read
from odradek.proxy.dialects.translation import opaque, parts
from odradek.schemas.http.reply import Choice, EngineUsage, ReplyBody

REASONS: Final = {"length": "MAX_TOKENS", "content_filter": "SAFETY"}
"""Others end with STOP, a call of a function, too."""


def whole(body: ReplyBody, request: ParsedRequest) -> dict[str, Any]:
    """A whole reply. Raises what `body.UNREADABLE` lists."""
    choice = parts.first(body) or Choice()
    pieces: list[dict[str, Any]] = []
    thoughts = ""
    for part in parts.of_message(choice):
        if part.kind == "reasoning":
            thoughts += part.text
            if shows_thoughts(request):
                pieces.append(thought(part.text))
        elif part.kind == "tool":
            pieces.append(call(part, request, body.id))
        else:
            pieces.append({"text": part.text})
    return content(sign(pieces, thoughts), request, body.id, choice, body.usage)


def shows_thoughts(request: ParsedRequest) -> bool:
    """Whether the agent wants to see the model's reasoning."""
    return bool(getattr(request.origin, "thoughts", False))


def thought(text: str) -> dict[str, Any]:
    """Reasoning, as it is shown."""
    return {"text": text, "thought": True}


def sign(pieces: list[dict[str, Any]], thoughts: str) -> list[dict[str, Any]]:
    """The parts; the first that is no thought keeps the reasoning for the next request."""
    if not thoughts:
        return pieces
    bearer = next((part for part in pieces if "thought" not in part), None)
    if bearer is None:
        bearer = {"text": ""}
        pieces.append(bearer)
    bearer["thoughtSignature"] = opaque.pack(thoughts)
    return pieces


def call(part: parts.ReplyPart, request: ParsedRequest, engine_id: str) -> dict[str, Any]:
    """A call of a function."""
    call_id = part.id or f"call_{parts.identity(engine_id, request)[:20]}_{part.tool}"
    return {"functionCall": {"id": call_id, "name": part.name, "args": read(part.text)}}


def content(
    pieces: list[dict[str, Any]],
    request: ParsedRequest,
    engine_id: str,
    choice: Choice | None = None,
    used: EngineUsage | None = None,
) -> dict[str, Any]:
    """A reply, or the new part of it; with a choice, its end."""
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": pieces}, "index": 0}
    if choice is not None:
        candidate["finishReason"] = REASONS.get(choice.finish_reason or "", "STOP")
    response: dict[str, Any] = {"candidates": [candidate]}
    if choice is not None:
        response["usageMetadata"] = usage(used)
    return {
        **response,
        "modelVersion": request.model,
        "responseId": parts.identity(engine_id, request),
    }


def usage(used: EngineUsage | None) -> dict[str, Any]:
    """Tokens as Google counts them."""
    used = used or EngineUsage()
    counts = {
        "promptTokenCount": used.prompt,
        "candidatesTokenCount": used.completion,
        "totalTokenCount": used.prompt + used.completion,
    }
    return {**counts, "cachedContentTokenCount": used.cached} if used.cached else counts
