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
    made: list[dict[str, Any]] = []
    thoughts = ""
    for part in parts.of_message(choice):
        if part.kind == "reasoning":
            thoughts += part.text
            if shows_thoughts(request):
                made.append(thought(part.text))
        elif part.kind == "tool":
            made.append(call(part, request, body.id))
        else:
            made.append({"text": part.text})
    return content(sign(made, thoughts), request, body.id, choice, body.usage)


def shows_thoughts(request: ParsedRequest) -> bool:
    """Whether the agent wants to see the model's reasoning."""
    return bool(getattr(request.origin, "thoughts", False))


def thought(text: str) -> dict[str, Any]:
    """Reasoning, as it is shown."""
    return {"text": text, "thought": True}


def sign(made: list[dict[str, Any]], thoughts: str) -> list[dict[str, Any]]:
    """The parts, the first of which to say something keeps the reasoning for the next request."""
    if not thoughts:
        return made
    bearer = next((part for part in made if "thought" not in part), None)
    if bearer is None:
        bearer = {"text": ""}
        made.append(bearer)
    bearer["thoughtSignature"] = opaque.pack(thoughts)
    return made


def call(part: parts.ReplyPart, request: ParsedRequest, engine_id: str) -> dict[str, Any]:
    """A call of a function."""
    named = part.id or f"call_{parts.identity(engine_id, request)[:20]}_{part.tool}"
    return {"functionCall": {"id": named, "name": part.name, "args": read(part.text)}}


def content(
    made: list[dict[str, Any]],
    request: ParsedRequest,
    engine_id: str,
    choice: Choice | None = None,
    used: EngineUsage | None = None,
) -> dict[str, Any]:
    """A reply, or the new part of it; with a choice, its end."""
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": made}, "index": 0}
    if choice is not None:
        candidate["finishReason"] = REASONS.get(choice.finish_reason or "", "STOP")
    told: dict[str, Any] = {"candidates": [candidate]}
    if choice is not None:
        told["usageMetadata"] = usage(used)
    return {**told, "modelVersion": request.model, "responseId": parts.identity(engine_id, request)}


def usage(used: EngineUsage | None) -> dict[str, Any]:
    """Tokens as Google counts them."""
    used = used or EngineUsage()
    told = {
        "promptTokenCount": used.prompt,
        "candidatesTokenCount": used.completion,
        "totalTokenCount": used.prompt + used.completion,
    }
    return {**told, "cachedContentTokenCount": used.cached} if used.cached else told
