"""OpenAI's chat completions: what is forced into a request and taken out of its reply.

Values that we do not look at stay `Raw`: they are copied, not parsed, so what the agent sends and
sees is what it would send to the engine and see from it, key order included.
"""

import hashlib
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from odradek.proxy.errors import BadRequest
from odradek.schemas.codec import check_depth
from odradek.schemas.errors import InvalidRecord

NAME: Final = "chat"
TRUE: Final = Raw(b"true")
NULL: Final = Raw(b"null")
FORCED: Final = ("logprobs", "return_token_ids", "return_weight_versions")
KEPT: Final = frozenset({"messages", "tools", "functions", "stream", "stream_options", *FORCED})
"""Fields that a token's `sampling` never sets."""
RECORDED: Final = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "max_tokens",
    "max_completion_tokens",
    "min_tokens",
    "n",
    "seed",
    "stop",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "tool_choice",
    "response_format",
    "reasoning_effort",
)
"""Fields that a turn records as its sampling."""

_fields: Final = msgspec.json.Decoder(dict[str, Raw])
_choices: Final = msgspec.json.Decoder(list[dict[str, Raw]])
_messages: Final = msgspec.json.Decoder(list[Raw])
_encode: Final = msgspec.json.Encoder().encode


class Ask(Struct, frozen=True, kw_only=True):
    """A request, as far as the proxy needs to know it."""

    body: bytes
    """What goes to the engine."""
    digest: str
    """sha256 of what the agent sent."""
    model: str
    stream: bool
    n: int
    messages: list[Raw]
    tools: Raw | None
    sampling: dict[str, Any]
    logprobs: bool
    """Whether the agent itself asked for these."""
    token_ids: bool
    weight_versions: bool
    usage: bool

    @property
    def wants_all(self) -> bool:
        """Whether nothing has to be taken out of the reply."""
        return self.logprobs and self.token_ids and self.weight_versions


def ask(body: bytes, *, sampling: dict[str, Any], model: str = "") -> Ask:
    """Read an agent's request and force into it what a turn needs.

    Args:
        body: As the agent sent it.
        sampling: Fields that the episode's token sets on each request.
        model: The model that the token is for; "" leaves the agent's.

    Raises BadRequest.
    """
    try:
        check_depth(body)
        fields = _fields.decode(body)
        messages = _messages.decode(fields["messages"])
        stream = _of(fields, "stream", bool | None) or False
        logprobs = _of(fields, "logprobs", bool | None) or False
        token_ids = _of(fields, "return_token_ids", bool | None) or False
        versions = _of(fields, "return_weight_versions", bool | None) or False
        options = _of(fields, "stream_options", dict[str, Raw] | None) or {}
        asked = _of(fields, "model", str | None) or ""
        for name, value in sampling.items():
            if name not in KEPT:
                fields[name] = Raw(_encode(value))
        n = _of(fields, "n", int | None) or 1
        usage = _of(options, "include_usage", bool | None) or False
    except KeyError:
        raise BadRequest("the request has no messages") from None
    except InvalidRecord as error:
        raise BadRequest(f"the request is {error.reason.replace('_', ' ')}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the request cannot be read: {str(error)[:200]}") from None
    if model and model != asked:
        fields["model"] = Raw(_encode(model))
    for name in FORCED:
        fields[name] = TRUE
    if stream and not usage:
        # Without include_usage the engine ignores continuous_usage_stats; with ours it would not.
        options["include_usage"] = TRUE
        options.pop("continuous_usage_stats", None)
        fields["stream_options"] = Raw(_encode(options))
    tools = fields.get("tools")
    return Ask(
        body=_encode(fields),
        digest=hashlib.sha256(body).hexdigest(),
        model=model or asked,
        stream=stream,
        n=n,
        messages=messages,
        tools=None if tools == NULL else tools,
        sampling={name: msgspec.json.decode(fields[name]) for name in RECORDED if name in fields},
        logprobs=logprobs,
        token_ids=token_ids,
        weight_versions=versions,
        usage=usage,
    )


def _of(fields: dict[str, Raw], name: str, kind: Any) -> Any:
    value = fields.get(name)
    return None if value is None else msgspec.json.decode(value, type=kind)


def trim(reply: bytes, request: Ask) -> bytes:
    """A whole reply, or a chunk of a stream, without what the agent did not ask for.

    Where vLLM writes a field as null when it is not asked for (`logprobs`, `token_ids`,
    `prompt_token_ids`), it is null again, in its place; `weight_versions` it omits. Raises
    msgspec.DecodeError for what is no JSON object with choices.
    """
    if request.wants_all:
        return reply
    fields = _fields.decode(reply)
    _trim(fields, request)
    return _encode(fields)


def trim_chunk(data: bytes, request: Ask) -> bytes | None:
    """A chunk of a stream, or None where the agent would not have got it at all."""
    if request.wants_all and request.usage:
        return data
    fields = _fields.decode(data)
    choices = fields.get("choices")
    if not request.usage and "usage" in fields:
        if choices == Raw(b"[]"):
            return None
        del fields["usage"]
    _trim(fields, request)
    return _encode(fields)


def _trim(fields: dict[str, Raw], request: Ask) -> None:
    if not request.token_ids and "prompt_token_ids" in fields:
        fields["prompt_token_ids"] = NULL
    raw = fields.get("choices")
    if raw is None:
        return
    choices = _choices.decode(raw)
    for choice in choices:
        if not request.logprobs and "logprobs" in choice:
            choice["logprobs"] = NULL
        if not request.token_ids and "token_ids" in choice:
            choice["token_ids"] = NULL
        if not request.weight_versions:
            choice.pop("weight_versions", None)
    fields["choices"] = Raw(_encode(choices))
