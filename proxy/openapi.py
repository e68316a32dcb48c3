"""An OpenAPI 3.1 document of the proxy: paths from the route table, bodies from the types."""

import re
from typing import Any, Final

import msgspec
from aiohttp import web
from msgspec import Struct

from odradek.proxy.dialects.gemini import contents as google_contents
from odradek.proxy.dialects.gemini import request as google
from odradek.proxy.dialects.messages import request as anthropic
from odradek.proxy.dialects.messages import tools as anthropic_tools
from odradek.proxy.dialects.responses import items
from odradek.schemas.http.seal import SealRequest

HIDDEN: Final = frozenset({"/{rest}"})
METHODS: Final = frozenset({"GET", "POST"})


class MessagePart(Struct):
    """A part of a chat message: text, or an image by reference."""

    type: str
    text: str | None = None
    image_url: dict[str, str] | None = None


class Function(Struct):
    """A function by name."""

    name: str
    arguments: str = ""


class ToolCall(Struct):
    """A call that the model made."""

    id: str
    function: Function
    type: str = "function"


class ChatMessage(Struct):
    """A message of a chat."""

    role: str
    content: str | list[MessagePart] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None


class SamplingFields(Struct, kw_only=True):
    """What all dialects know; fields that are not named here go to the engine as they are."""

    model: str
    stream: bool = False
    temperature: float | None = None
    top_p: float | None = None


class ChatRequest(SamplingFields, kw_only=True):
    """OpenAI chat completions."""

    messages: list[ChatMessage]
    n: int | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    tools: list[dict[str, Any]] | None = None
    stream_options: dict[str, bool] | None = None
    logprobs: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class CompletionRequest(SamplingFields, kw_only=True):
    """OpenAI text completions."""

    prompt: str | list[Any]
    n: int | None = None
    max_tokens: int | None = None
    echo: bool | None = None
    logprobs: int | None = None


class MessagesRequest(SamplingFields, kw_only=True):
    """Anthropic messages."""

    messages: list[anthropic.InputMessage]
    max_tokens: int
    system: str | list[anthropic.TextBlock] | None = None
    stop_sequences: list[str] | None = None
    tools: list[anthropic_tools.ClientTool] | None = None
    tool_choice: anthropic_tools.MessagesToolChoice | None = None
    thinking: anthropic.ThinkingMode | None = None
    metadata: anthropic.Metadata | None = None


class CountRequest(Struct, kw_only=True):
    """Anthropic's count of tokens."""

    model: str
    messages: list[anthropic.InputMessage]
    system: str | None = None


class ResponsesRequest(SamplingFields, kw_only=True):
    """OpenAI responses."""

    input: str | list[items.Item]
    instructions: str | None = None
    max_output_tokens: int | None = None
    tools: list[dict[str, Any]] | None = None
    previous_response_id: str | None = None
    store: bool | None = None


class ContentRequest(Struct, kw_only=True, rename="camel"):
    """Google's generated content."""

    contents: list[google_contents.Content]
    system_instruction: google_contents.Content | None = None
    tools: list[dict[str, Any]] | None = None
    tool_config: dict[str, Any] | None = None
    generation_config: google.GenerationConfig | None = None


BODIES: Final[dict[str, type[Struct]]] = {
    "/chat/completions": ChatRequest,
    "/completions": CompletionRequest,
    "/messages": MessagesRequest,
    "/messages/count_tokens": CountRequest,
    "/responses": ResponsesRequest,
    "/responses/compact": ResponsesRequest,
    "/seal": SealRequest,
    ":generateContent": ContentRequest,
    ":streamGenerateContent": ContentRequest,
    ":countTokens": ContentRequest,
}
"""What a path takes, by its end; the longest that fits."""


def document(app: web.Application, *, version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of an application's routes.

    Raises ValueError for a route that takes a body which is not in BODIES.
    """
    refs, schemas = msgspec.json.schema_components(
        BODIES.values(), ref_template="#/components/schemas/{name}"
    )
    bodies = dict(zip(BODIES, refs, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in app.router.routes():
        path = route.resource.canonical if route.resource is not None else ""
        if path in HIDDEN or route.method not in METHODS:
            continue
        paths.setdefault(path, {})[route.method.lower()] = _operation(route.method, path, bodies)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Odradek's proxy", "version": version},
        "security": [{"bearer": []}, {"key": []}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _operation(method: str, path: str, bodies: dict[str, Any]) -> dict[str, Any]:
    names = re.findall(r"{(\w+)}", path)
    made: dict[str, Any] = {
        "operationId": f"{method} {path}",
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in names
        ],
        "responses": {
            "2XX": {"description": "The answer, in the dialect's own shape."},
            "4XX": {"description": "Refused, in the dialect's own shape."},
            "5XX": {"description": "The engine's or the log's doing; Retry-After says when."},
        },
    }
    if method == "POST":
        end = max((end for end in bodies if path.endswith(end)), key=len)
        made["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": bodies[end]}},
        }
    return made
