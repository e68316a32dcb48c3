"""A dialect: how it reads requests and writes replies, and what the proxy must know of it.

The engine speaks chat completions (and text completions). A dialect turns a request into one of
the engine's, and turns the answer back. It is pure: no I/O, no clock, no chance. So the same reply
gives the same bytes, however often and in however many pieces it comes.
"""

import hashlib
import re
from base64 import urlsafe_b64encode
from collections.abc import Hashable
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final, Protocol, TypeVar

import msgspec
from msgspec import Raw, Struct

from odradek.proxy.dialects.model_routes import Route
from odradek.proxy.dialects.replies import ReplyStore
from odradek.proxy.dialects.sampling import ALL_TOKENS, Training
from odradek.proxy.dialects.tools.hosted import Hosted
from odradek.proxy.errors import BadRequest, ProxyError, Unsupported
from odradek.proxy.wire.body import NULL, UNREADABLE
from odradek.proxy.wire.reply import CapturedReply
from odradek.proxy.wire.sse import ServerEvent
from odradek.schemas.codec import check_depth, check_text
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.http.reply import ReplyBody

Value = TypeVar("Value")
FREE: Final = frozenset({"action", "input", "input_schema", "parameters", "schema"})
"""Fields whose content is the agent's own: in them a null stays a null."""
_PLACE: Final = re.compile(r" - at `\$\.?(.*)`$")


class SamplingFields(Struct, kw_only=True):
    """The fields that all dialects have; unlisted fields go to the engine as they are."""

    model: str
    stream: bool = False
    temperature: float | None = None
    top_p: float | None = None


class Limits(Struct, frozen=True, kw_only=True):
    """Bounds on one request."""

    n: int = 128
    """Choices."""
    max_tokens: int = 262_144
    """Tokens of each."""
    tools: int = 512
    depth: int = 60
    """Nesting of its JSON."""


class RequestRules(Struct, frozen=True, kw_only=True):
    """The rules by which the proxy takes a request."""

    sampling: dict[str, Any] = {}
    """Fields that the episode's token sets on each request."""
    training: Training = ALL_TOKENS
    """The sampling fields that are written where neither token nor client sets them."""
    trainings: dict[Route, Training] = {}
    """The same for routes to other engines than the policy's."""
    model: str = ""
    """The model that the token is for; "" leaves the agent's."""
    limits: Limits = Limits()
    memory: ReplyStore = ReplyStore()
    """The episode's earlier replies."""
    routes: dict[str, Route] = {}
    """The routes of the model names that the settings map."""
    hosted: Hosted = "drop"
    """What becomes of tools that no engine has."""

    def at(self, route: Route | None) -> Training:
        """The fields that are written into calls to that engine."""
        return self.trainings.get(route, self.training) if route is not None else self.training


class ParsedRequest(Struct, frozen=True, kw_only=True):
    """A request, as far as the proxy needs to know it."""

    dialect: "Dialect"
    body: bytes
    """What goes to the engine."""
    digest: str
    """Fingerprint of what the agent sent."""
    model: str
    stream: bool
    n: int
    messages: list[Raw]
    """In the form of chats."""
    tools: Raw | None
    sampling: dict[str, Any]
    training: Training = ALL_TOKENS
    """The fields that were written where the client left them out."""
    logprobs: bool = False
    """Whether the agent itself asked for log probabilities."""
    token_ids: bool = False
    weight_versions: bool = False
    usage: bool = False
    media: bool = False
    """Whether some field beside the messages holds media."""
    route: Route | None = None
    """The engine and model that it goes to, if its model's name is mapped."""
    without_tools: bool = False
    """Whether the model has no tools."""
    salt: str = ""
    """Digest of the agent's own salt; `body` holds none."""
    prompts: tuple[Raw, ...] = ()
    """The prompts of a text completion that has several: each as a message, with `n` choices."""
    origin: "Origin | None" = None
    """The fields of a translated request that its reply needs."""
    content_type: str = ""
    """The content type of its stream; "" for the engine's own."""
    dropped: tuple[str, ...] = ()
    """The types of tools and other parts that the engine does not get."""

    @property
    def wants_all(self) -> bool:
        """Whether nothing has to be taken out of the reply."""
        return self.logprobs and self.token_ids and self.weight_versions

    @property
    def choices(self) -> int:
        """How many choices it asks for."""
        return self.n * (len(self.prompts) or 1)

    def of(self, choice: int) -> "ParsedRequest":
        """The request that this choice answers."""
        if not self.prompts:
            return self
        prompt = self.prompts[min(choice // self.n, len(self.prompts) - 1)]
        return msgspec.structs.replace(self, messages=[prompt])


class Origin(Protocol):
    """A translated request, in the dialect's own terms."""

    def remember(self, memory: ReplyStore, request: ParsedRequest, captured: CapturedReply) -> None:
        """Note a reply that the log has, for requests that will refer to it."""
        ...


class Stream(Protocol):
    """Turns the events of the engine's stream into those of the dialect, one by one."""

    def feed(self, event: ServerEvent, body: ReplyBody) -> bytes:
        """The bytes that the agent gets for an event; `body` is its data, as captured."""
        ...

    def garbled(self, event: ServerEvent, why: str) -> bytes:
        """The same for an event that is an error or cannot be read."""
        ...

    def fail(self, error: ProxyError) -> bytes:
        """End the stream with our own error."""
        ...

    def end(self, why: str) -> bytes:
        """The engine's stream is over; `why` says what its end lacks, "" if nothing."""
        ...


class Dialect(Protocol):
    """An API that agents speak to the proxy."""

    @property
    def name(self) -> str:
        """The name in turns."""
        ...

    @property
    def path(self) -> str:
        """The engine's route that takes what `parse` makes."""
        ...

    @property
    def ping(self) -> bytes:
        """The ping that keeps a silent stream alive; empty if the dialect has none."""
        ...

    def read(self, data: bytes) -> ReplyBody:
        """The engine's reply, or a chunk of it. Raises what `body.UNREADABLE` lists."""
        ...

    def parse(self, body: bytes, terms: RequestRules) -> ParsedRequest:
        """Read an agent's request. Raises BadRequest."""
        ...

    def reply(self, reply: bytes, request: ParsedRequest) -> bytes:
        """The engine's whole reply as the agent gets it. Raises msgspec.MsgspecError."""
        ...

    def stream(self, request: ParsedRequest) -> Stream:
        """A stream's beginning."""
        ...

    def error(self, error: ProxyError) -> bytes:
        """An error's body."""
        ...

    def refusal(self, body: bytes, status: int) -> bytes:
        """The body of an engine's answer that is an error."""
        ...


def single(request: ParsedRequest) -> ParsedRequest:
    """The request, if it asks for one choice: samples that no agent sees must not be trained on.

    Dialects whose reply has one choice only call this. Raises Unsupported.
    """
    if request.n > 1:
        raise Unsupported("n: a reply has one choice in this dialect", param="n")
    return request


def fingerprint(body: bytes) -> str:
    """128 bits of a text's sha256 as 22 characters of base64url; every turn has one."""
    return urlsafe_b64encode(hashlib.sha256(body).digest()[:16])[:22].decode()


def shallow(body: bytes, limits: Limits) -> None:
    """Refuse a body that nests too deep, or is not valid Unicode, before anything parses it.

    Such text would pass unread into the turn, and no reader of the log would accept it. Raises
    BadRequest.
    """
    try:
        check_depth(body, limits.depth)
        check_text(body)
    except InvalidRecord as error:
        raise BadRequest(f"the request is {error.reason.replace('_', ' ')}") from None


def unreadable(error: Exception, where: str = "") -> BadRequest:
    """The message of msgspec about a value, with the field's name in the dialect."""
    text = str(error)
    match = _PLACE.search(text)
    inner = match[1] if match else ""
    joint = "." if where and inner and not inner.startswith("[") else ""
    place = f"{where}{joint}{inner}"
    text = _PLACE.sub("", text)[:200]
    if not place:
        return BadRequest(f"the request cannot be read: {text}")
    return BadRequest(f"{place}: {text}", param=place)


def field(fields: dict[str, Raw], name: str, decoder: msgspec.json.Decoder[Value]) -> Value:
    """A field's value, null where it is absent. Raises BadRequest, which names it."""
    try:
        return decoder.decode(fields.get(name, NULL))
    except UNREADABLE as error:
        raise unreadable(error, name) from None


def maybe(
    fields: dict[str, Raw], name: str, decoder: msgspec.json.Decoder[Value | None]
) -> Value | None:
    """A field's value, None where it is absent. Raises BadRequest, which names it."""
    return field(fields, name, decoder) if name in fields else None


@lru_cache(maxsize=128)
def _decoder(kind: Hashable) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def typed(fields: dict[str, Raw], name: str, kind: Any) -> Any:
    """A field's value in the shape of `kind`; null is absent. Raises BadRequest, which names it."""
    try:
        return _decoder(kind).decode(fields.get(name, NULL))
    except msgspec.ValidationError:
        return convert(msgspec.json.decode(fields.get(name, NULL)), kind, name)
    except UNREADABLE as error:
        raise unreadable(error, name) from None


def convert(value: Any, kind: Any, where: str) -> Any:
    """A value in the shape of `kind`; null is absent. Raises BadRequest, which names the field."""
    with suppress(msgspec.ValidationError, RecursionError):
        return msgspec.convert(value, kind)
    # Few requests get here: those with a null where only an absent field is allowed.
    try:
        return msgspec.convert(_present(value), kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise unreadable(error, where) from None


def _present(value: Any) -> Any:
    """The same without the fields that are null."""
    if isinstance(value, list):
        return [_present(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    return {
        name: entry if name in FREE else _present(entry)
        for name, entry in value.items()
        if entry is not None
    }
