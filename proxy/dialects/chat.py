"""OpenAI's chat completions: fields forced into a request and taken out of its reply.

Values that we do not look at stay `Raw`: they are copied, not parsed, so what the agent sends and
sees is what it would send to the engine and see from it, key order included.
"""

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from odradek.proxy.dialects import blocklist, cache_salt, errors, sampling
from odradek.proxy.dialects.dialect import (
    ParsedRequest,
    RequestRules,
    SamplingFields,
    field,
    fingerprint,
    maybe,
    shallow,
    unreadable,
)
from odradek.proxy.dialects.model_routes import Route
from odradek.proxy.dialects.surface import Surface
from odradek.proxy.dialects.tools import chat as text_tools
from odradek.proxy.errors import BadRequest, EngineError, LimitExceeded, ProxyError
from odradek.proxy.wire import body as bodies
from odradek.proxy.wire import media, sse
from odradek.schemas.codec import check_depth, check_text
from odradek.schemas.http import engine
from odradek.schemas.http.reply import ReplyBody

TRUE: Final = Raw(b"true")
NULL: Final = Raw(b"null")
NO_TRAINING: Final = sampling.Training.of({})
KEPT: Final = frozenset(
    {"messages", "tools", "functions", "stream", "stream_options", *sampling.FORCED}
)
"""Fields that a token's `sampling` never sets."""
_fields: Final = msgspec.json.Decoder(dict[str, Raw])
_choices: Final = msgspec.json.Decoder(list[dict[str, Raw]])
_messages: Final = msgspec.json.Decoder(list[Raw])
_options: Final = msgspec.json.Decoder(dict[str, Raw] | None)
_bool: Final = msgspec.json.Decoder(bool | None)
_int: Final = msgspec.json.Decoder(int | None)
_str: Final = msgspec.json.Decoder(str | None)
_encode: Final = msgspec.json.Encoder().encode


class Chat:
    """Chat completions: the engine's own dialect."""

    name: Final = "chat"
    path: Final = engine.CHAT.path
    ping: Final = sse.COMMENT

    def read(self, data: bytes) -> ReplyBody:
        """The engine's reply, or a chunk of it, as it is."""
        return bodies.read(data)

    def parse(self, body: bytes, terms: RequestRules) -> ParsedRequest:
        """Read an agent's request and force the fields of a turn into it. Raises BadRequest."""
        shallow(body, terms.limits)
        try:
            fields = _fields.decode(body)
            texts, dropped = text_tools.translate(fields, terms)
            messages = field(fields, "messages", _messages)
            logprobs = maybe(fields, "logprobs", _bool) or False
            flags = common_fields(fields, terms)
        except bodies.UNREADABLE as error:
            raise unreadable(error) from None
        demand(fields, flags)
        return ParsedRequest(
            dialect=self,
            body=_encode(fields),
            digest=fingerprint(body),
            messages=messages,
            logprobs=logprobs or is_plain(flags),
            origin=texts,
            dropped=dropped,
            **flags,
        )

    def reply(self, reply: bytes, request: ParsedRequest) -> bytes:
        """The reply, trimmed."""
        trimmed = trim(reply, request)
        texts = request.origin
        return (
            text_tools.TextToolCalls(texts.names).whole(trimmed)
            if isinstance(texts, text_tools.Texts)
            else trimmed
        )

    def stream(self, request: ParsedRequest) -> "Chunks":
        """Chunks, trimmed."""
        return Chunks(request)

    def error(self, error: ProxyError) -> bytes:
        """OpenAI's shape."""
        return errors.openai(error)

    def refusal(self, body: bytes, status: int) -> bytes:
        """The engine's own words, as long as they have OpenAI's shape."""
        return errors.openai_of(body, status)


class Chunks:
    """A stream of chunks: the engine's, less what the agent did not ask for."""

    def __init__(self, request: ParsedRequest) -> None:
        self._request = request
        self._done = False
        """The engine said that its stream is over."""
        self._failed = False
        self._untouched = request.wants_all and request.usage
        """Whether nothing has to be taken out of any chunk."""
        self._head = b""
        """The bytes before the choices of a chunk; most engines repeat them in each chunk."""
        self._calls = (
            text_tools.TextToolCalls(request.origin.names)
            if isinstance(request.origin, text_tools.Texts)
            else None
        )

    def feed(self, event: sse.ServerEvent, body: ReplyBody) -> bytes:
        """The event itself where nothing has to be taken out of it."""
        data = event.data
        if data is None:
            return event.raw
        if data == sse.DONE:
            marker, self._done = b"" if self._done else event.raw, True
            return marker
        trimmed = self._trimmed(data)
        if trimmed is None:
            return b""
        if self._calls is not None:
            trimmed = self._calls.chunk(trimmed)
        if trimmed is data:
            return event.raw
        # Several data lines were one JSON text, of which each part that we copied kept its lines.
        if trimmed.find(b"\n") >= 0:
            trimmed = msgspec.json.format(trimmed, indent=-1)
        return sse.event(trimmed)

    def _trimmed(self, data: bytes) -> bytes | None:
        """A chunk as the agent asked for it; None where it would not have got it at all."""
        if self._untouched and data.find(cache_salt.FIELD) < 0:
            return data
        head = self._head
        if head and data.startswith(head) and data.endswith(b"]}"):
            try:
                choices = _choices.decode(data[len(head) : -1])
            except msgspec.DecodeError:
                pass  # more follows the choices
            else:
                _trim_choices(choices, self._request)
                return b"%b%b}" % (head, _encode(choices))
        fields = _fields.decode(data)
        if not self._request.usage and "usage" in fields:
            if fields.get("choices") == Raw(b"[]"):
                return None
            del fields["usage"]
        untrimmed = fields.get("choices", NULL)
        _trim(fields, self._request)
        trimmed = _encode(fields)
        self._head = _head(data, untrimmed, trimmed, fields)
        return trimmed

    def garbled(self, event: sse.ServerEvent, why: str) -> bytes:
        """The engine's event, if that is an error to OpenAI's clients; else an error of ours."""
        self._failed = True
        if event.data is not None and errors.is_openai(event.data):
            return event.raw
        return self.fail(EngineError(why))

    def fail(self, error: ProxyError) -> bytes:
        """An event with an error; nothing follows it."""
        self._failed = True
        return sse.event(errors.openai(error))

    def end(self, why: str) -> bytes:
        """The last event, where the engine sent none."""
        if self._failed:
            return b""
        if why:
            return self.fail(EngineError(why))
        return b"" if self._done else sse.event(sse.DONE)


def common_fields(fields: dict[str, Raw], terms: RequestRules) -> dict[str, Any]:
    """The fields of a ParsedRequest that chats and text completions share; completes `fields`.

    Raises BadRequest, or what `body.UNREADABLE` lists.
    """
    route = terms.routes.get(maybe(fields, "model", _str) or "") if terms.routes else None
    plain = route is not None and route.plain
    training = NO_TRAINING if plain else terms.at(route)
    if training.force:
        sampling.force(fields)
    for name, value in terms.sampling.items() if not plain else ():
        if name not in KEPT:
            fields[name] = Raw(_encode(value))
    stream = maybe(fields, "stream", _bool) or False
    model = maybe(fields, "model", _str) or ""
    n = 1 if (asked := maybe(fields, "n", _int)) is None else asked
    tools = _tools(fields)
    _bound(fields, n, tools, terms)
    blocklist.refuse(fields)
    own_salt = cache_salt.take_own(fields)
    name = terms.model or model if route is None else route.named(model, terms.model)
    if name != model:
        fields["model"] = Raw(_encode(name))
    options = maybe(fields, "stream_options", _options) or {}
    usage = maybe(options, "include_usage", _bool) or False
    if stream and not usage:
        # Without include_usage the engine ignores continuous_usage_stats; with ours it would not.
        options["include_usage"] = TRUE
        options.pop("continuous_usage_stats", None)
        fields["stream_options"] = Raw(_encode(options))
    return {
        "model": name,
        "stream": stream,
        "n": n,
        "tools": tools,
        "sampling": sampling.settle(fields, training),
        "training": training,
        # A plain call asks only for what the agent asked for, so nothing is taken out either.
        "token_ids": maybe(fields, engine.TOKEN_IDS, _bool) or plain,
        "weight_versions": maybe(fields, engine.WEIGHT_VERSIONS, _bool) or plain,
        "usage": usage,
        "media": media.requested(fields),
        "route": route,
        "without_tools": tools is None,
        "salt": own_salt,
    }


def _tools(fields: dict[str, Raw]) -> Raw | None:
    """A request's tools, or functions in the older way to have some; None for none."""
    for name in ("tools", "functions"):
        tools = fields.get(name)
        if tools is not None and tools != NULL and bytes(tools).strip(b"[] \t\r\n"):
            return tools
    return None


def demand(fields: dict[str, Raw], flags: dict[str, Any], *, logprobs: Raw = TRUE) -> None:
    """Ask the engine for the fields that a turn needs."""
    if is_plain(flags):
        return
    lacks = flags["training"].lacks
    for name in sampling.FORCED:
        if name not in lacks:
            fields[name] = logprobs if name == engine.LOGPROBS else TRUE


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


def is_plain(flags: dict[str, Any]) -> bool:
    """Whether the call goes out with nothing in it but what the agent asked for."""
    route: Route | None = flags["route"]
    return route is not None and route.plain


def _bound(fields: dict[str, Raw], n: int, tools: Raw | None, terms: RequestRules) -> None:
    """Hold a request against the limits. Raises LimitExceeded."""
    limits = terms.limits
    if n < 1:
        raise BadRequest("n: at least 1 choice", param="n")
    if n > limits.n:
        raise LimitExceeded(f"n: at most {limits.n} choices", param="n")
    for name in ("max_tokens", "max_completion_tokens"):
        if name in fields and (maybe(fields, name, _int) or 0) > limits.max_tokens:
            raise LimitExceeded(f"{name}: at most {limits.max_tokens}", param=name)
    if tools is not None and len(tools) > 2 * limits.tools:
        # Each tool takes two bytes at least, and a comma: a shorter list needs no count.
        count = len(msgspec.json.decode(tools, type=list[Raw]))
        if count > limits.tools:
            raise LimitExceeded(f"tools: at most {limits.tools}, not {count}", param="tools")


def trim(reply: bytes, request: ParsedRequest) -> bytes:
    """A whole reply without what the agent did not ask for.

    Where engines write a field as null when it is not asked for (`logprobs`, `token_ids`,
    `prompt_token_ids`), it is null again, in its place; `weight_versions` it omits. Raises
    msgspec.DecodeError for what is no JSON object with choices, InvalidRecord for what a client
    could not read: fields that we do not read are copied as they stand.
    """
    if not request.wants_all or cache_salt.FIELD in reply:
        fields = _fields.decode(reply)
        _trim(fields, request)
        reply = _encode(fields)
    check_depth(reply)
    check_text(reply)
    return reply


def _trim(fields: dict[str, Raw], request: ParsedRequest) -> None:
    fields.pop(cache_salt.NAME, None)
    if not request.token_ids and "prompt_token_ids" in fields:
        fields["prompt_token_ids"] = NULL
    raw = fields.get("choices")
    if raw is None or raw == NULL:
        return
    choices = _choices.decode(raw)
    _trim_choices(choices, request)
    fields["choices"] = Raw(_encode(choices))


def _trim_choices(choices: list[dict[str, Raw]], request: ParsedRequest) -> None:
    for choice in choices:
        if not request.logprobs and "logprobs" in choice:
            choice["logprobs"] = NULL
        if not request.token_ids and "token_ids" in choice:
            choice["token_ids"] = NULL
            if "prompt_token_ids" in choice:
                choice["prompt_token_ids"] = NULL
        if not request.weight_versions:
            choice.pop("weight_versions", None)


def _head(data: bytes, choices: Raw, trimmed: bytes, fields: dict[str, Raw]) -> bytes:
    """The bytes before a chunk's choices, if nothing follows the choices and all bytes are kept.

    These bytes are the same when the chunk's fields are written anew, each of them once. So a chunk
    that begins with them, and goes on with one list to its end, is to be trimmed in that list only.
    """
    if next(reversed(fields), "") != "choices":
        return b""
    head = data[: len(data) - len(choices) - 1]
    return head if trimmed[: len(trimmed) - len(fields["choices"]) - 1] == head else b""


CHAT: Final = Chat()
CHAT_SURFACE: Final = Surface(calls={"/chat/completions": CHAT}, body=ChatRequest)
