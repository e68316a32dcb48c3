"""A chat completion as a message of Anthropic's."""

from typing import Any, Final

from odradek.proxy.dialects.dialect import ParsedRequest
from odradek.proxy.dialects.replies import read
from odradek.proxy.dialects.translation import parts
from odradek.schemas.http.reply import Choice, EngineUsage, ReplyBody

REASONS: Final = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use",
                  "function_call": "tool_use", "content_filter": "refusal"}  # fmt: skip
SIGNATURE: Final = "unsigned"
"""Clients hand a thinking block back only if it is signed; nobody checks ours."""


def message(body: ReplyBody, request: ParsedRequest) -> dict[str, Any]:
    """A whole reply. Raises what `body.UNREADABLE` lists."""
    choice = parts.first(body) or Choice()
    blocks: list[dict[str, Any]] = []
    for part in parts.of_message(choice):
        if part.kind == "reasoning":
            if shows_thinking(request):
                blocks.append({"type": "thinking", "thinking": part.text, "signature": SIGNATURE})
        elif part.kind == "tool":
            blocks.append(tool_use(part, request, body.id, arguments=read(part.text)))
        else:
            blocks.append({"type": "text", "text": part.text, "citations": None})
    tools = any(block["type"] == "tool_use" for block in blocks)
    return {**head(body, request), "content": blocks, **ending(choice, tools=tools),
            "usage": usage(body.usage)}  # fmt: skip


def shows_thinking(request: ParsedRequest) -> bool:
    """Whether the agent wants to see the model's reasoning."""
    return bool(getattr(request.origin, "thinking", False))


def head(body: ReplyBody, request: ParsedRequest) -> dict[str, Any]:
    """The beginning of a message. Its id derives from the engine's, so a repeat has the same."""
    return {
        "id": f"msg_{parts.identity(body.id, request)}",
        "type": "message",
        "role": "assistant",
        "model": request.model,
    }


def ending(choice: Choice, *, tools: bool) -> dict[str, Any]:
    """Why a message ended."""
    stopped = choice.stop_reason
    if choice.finish_reason == "stop" and isinstance(stopped, str):
        return {"stop_reason": "stop_sequence", "stop_sequence": stopped or None}
    reason = REASONS.get(choice.finish_reason or "", "end_turn")
    if tools and reason == "end_turn":
        reason = "tool_use"  # engines end a call that was forced with "stop"
    return {"stop_reason": reason, "stop_sequence": None}


def usage(used: EngineUsage | None) -> dict[str, Any]:
    """Tokens in Anthropic's way of counting: what the cache had is not among the input."""
    used = used or EngineUsage()
    return {
        "input_tokens": max(0, used.prompt - used.cached),
        "output_tokens": used.completion,
        "cache_read_input_tokens": used.cached,
        "cache_creation_input_tokens": 0,
    }


def tool_use(
    part: parts.ReplyPart, request: ParsedRequest, engine_id: str, *, arguments: dict[str, Any]
) -> dict[str, Any]:
    """A call of a tool."""
    call_id = part.id or f"toolu_{parts.identity(engine_id, request)}_{part.tool}"
    return {"type": "tool_use", "id": call_id, "name": part.name, "input": arguments}
