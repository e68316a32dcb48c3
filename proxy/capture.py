"""What a reply becomes in a turn: pure, from the engine's bytes to ids, logprobs and words.

Token ids are the engine's own, never made again from text. What does not add up is named on the
turn (`untrainable`) and never guessed.
"""

import math
import sys
from array import array
from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from odradek.proxy.message import merge
from odradek.schemas.codec import MAX_DEPTH, check_depth, check_text
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import Completion, Usage, VersionSpan


class Logprob(Struct, gc=False):
    """One sampled token's log probability, in nats."""

    logprob: float


class Logprobs(Struct):
    """The engine's list of them."""

    content: list[Logprob] | None = None


class Weights(Struct, gc=False):
    """The engine's word on which policy sampled tokens [start, end)."""

    version: int | str | None
    start: int
    end: int


class Choice(Struct):
    """One choice of a reply, or of a chunk."""

    index: int = 0
    message: Raw = Raw(b"null")
    delta: dict[str, Any] = {}
    finish_reason: str | None = None
    stop_reason: Any = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None
    """Of text completions, where each choice has a prompt of its own; of chats the body has it."""
    logprobs: Logprobs | None = None
    weight_versions: list[Weights] | None = None


class Cached(Struct, gc=False):
    """How much of the prompt the engine had computed before."""

    cached_tokens: int | None = None


class EngineUsage(Struct):
    """Tokens as the engine counts them."""

    prompt_tokens: int = 0
    completion_tokens: int | None = 0
    prompt_tokens_details: Cached | None = None


class Body(Struct):
    """What we read of a reply, or of a chunk."""

    id: str = ""
    created: Any = None
    choices: list[Choice] = []
    usage: EngineUsage | None = None
    prompt_token_ids: list[int] | None = None
    error: Raw = Raw(b"null")


class Wrong(Struct):
    """What we read of an error: in OpenAI's shape, an older engine's, or a web server's."""

    error: Raw = Raw(b"null")
    message: Any = None
    detail: Any = None


class Captured(Struct, kw_only=True):
    """One choice of a reply, as a turn records it."""

    choice: int = 0
    message: Raw = Raw(b"null")
    finish_reason: str | None = None
    prompt: bytes = b""
    """All prompt ids."""
    completion: Completion = Completion()
    versions: tuple[VersionSpan, ...] = ()
    usage: Usage = Usage()
    id: str = ""
    untrainable: str = ""
    error: str = ""
    closed: bool = False
    """Whether the engine ended it at an end token, not at a limit or in a stop string."""

    @property
    def size(self) -> int:
        """Its bytes, those of a few short fields apart."""
        sampled = self.completion
        return len(self.message) + len(self.prompt) + len(sampled.ids) + len(sampled.logprobs)


NULL: Final = Raw(b"null")
MAX_CHOICE: Final = 2**16
MAX_COUNT: Final = 2**53 - 1
"""Beyond it readers in other languages would round."""
CLOSED: Final = frozenset({"stop", "tool_calls"})
_body: Final = msgspec.json.Decoder(Body)
_wrong: Final = msgspec.json.Decoder(Wrong)
_encode: Final = msgspec.json.Encoder().encode


Reader = Callable[[bytes], Body]
"""Reads a reply, or a chunk, of the engine. Raises what `UNREADABLE` lists."""
DEEPEST: Final = MAX_DEPTH - 4
"""A reply stands four levels deeper in the conversation that it becomes a part of."""
UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
read: Final[Reader] = _body.decode


def whole(reply: bytes, reader: Reader = read) -> list[Captured]:
    """Capture a whole reply, choice by choice; one that cannot be read is an `error`.

    There is always at least one.
    """
    try:
        body = reader(reply)
        for choice in body.choices:  # all that is copied as it stands
            check_depth(bytes(choice.message), DEEPEST)
            check_text(bytes(choice.message))
    except (InvalidRecord, *UNREADABLE) as error:
        return [Captured(error=f"the engine's reply cannot be read: {str(error)[:200]}")]
    if not body.choices:
        return [Captured(id=body.id, error=error_text(body.error) or "the engine's reply is empty")]
    # Copied, else the turn's memory would hold the whole reply.
    taken = [
        Taken(
            choice=choice,
            message=choice.message.copy(),
            ids=choice.token_ids,
            prompt=choice.prompt_token_ids,
            logprobs=choice.logprobs.content if choice.logprobs else None,
        )
        for choice in body.choices
    ]
    return _captured(body, taken)


class Taken(Struct):
    """What is known of one choice."""

    choice: Choice
    message: Raw = NULL
    said: dict[str, Any] = {}
    """The message of a stream, so far."""
    ids: list[int] | None = None
    prompt: list[int] | None = None
    logprobs: list[Logprob] | None = None

    def add(self, chunk: Choice) -> None:
        """Take in the choice of a chunk."""
        merge(self.said, chunk.delta)
        known = self.choice
        known.finish_reason = chunk.finish_reason or known.finish_reason
        known.stop_reason = known.stop_reason if chunk.stop_reason is None else chunk.stop_reason
        if chunk.weight_versions:
            known.weight_versions = joined(known.weight_versions or [], chunk.weight_versions)
        if chunk.token_ids is not None:
            self.ids = self.ids or []
            self.ids += chunk.token_ids
        if chunk.prompt_token_ids is not None and self.prompt is None:
            self.prompt = chunk.prompt_token_ids
        if chunk.logprobs is not None and chunk.logprobs.content is not None:
            self.logprobs = self.logprobs or []
            self.logprobs += chunk.logprobs.content


class Streamed:
    """Captures a stream, chunk by chunk."""

    def __init__(self, reader: Reader = read) -> None:
        self._read = reader
        self._whole = Body()
        self._choices: dict[int, Taken] = {}
        self.body = Body()
        """The last chunk that could be read."""
        self.bad = ""
        """What is wrong with the last chunk."""
        self.error = ""

    @property
    def ended(self) -> bool:
        """Whether each choice that began has its finish reason."""
        choices = self._choices.values()
        return bool(choices) and all(taken.choice.finish_reason is not None for taken in choices)

    def feed(self, data: bytes) -> bool:
        """Take in a chunk; tells whether the agent could take it for the end of the reply."""
        self.bad = ""
        try:
            check_depth(data, DEEPEST)
            check_text(data)  # also of what is not read, since a dialect may copy it
            body = self.body = self._read(data)
        except (InvalidRecord, *UNREADABLE) as error:
            self.bad = self.error = (
                f"a chunk of the engine's stream cannot be read: {str(error)[:200]}"
            )
            return True
        if body.error != NULL:
            self.bad = self.error = error_text(body.error)
            return True
        known = self._whole
        known.id = body.id or known.id
        known.usage = body.usage or known.usage
        if body.prompt_token_ids is not None and known.prompt_token_ids is None:
            known.prompt_token_ids = body.prompt_token_ids
        ends = False
        for choice in body.choices:
            ends = ends or choice.finish_reason is not None
            taken = self._choices.get(choice.index)
            if taken is None:
                taken = self._choices[choice.index] = Taken(Choice(index=choice.index))
            taken.add(choice)
        return ends

    def captured(self) -> list[Captured]:
        """All chunks as one reply, choice by choice."""
        choices = [self._choices[index] for index in sorted(self._choices)] or [Taken(Choice())]
        for taken in choices:
            taken.message = Raw(_encode(taken.said)) if taken.said else NULL
        found = _captured(self._whole, choices)
        for one in found:
            one.error = self.error
        return found


def joined(known: list[Weights], new: list[Weights]) -> list[Weights]:
    """Spans of a stream: vLLM tells all of them at the end, other engines those of each chunk."""
    if not known or new[0].start < known[-1].end:
        return new
    spans = list(known)
    for span in new:
        last = spans[-1]
        if (last.version, last.end) == (span.version, span.start):
            spans[-1] = Weights(last.version, last.start, span.end)
        else:
            spans.append(span)
    return spans


def _captured(body: Body, choices: list[Taken]) -> list[Captured]:
    found = [_choice(body, taken) for taken in choices]
    n = sum(len(taken.ids or ()) for taken in choices)
    counted = body.usage.completion_tokens if body.usage else None
    if counted is not None and counted != n:
        for one in found:
            one.untrainable = one.untrainable or "length_mismatch"
    _share(_usage(body.usage), found)
    return found


def _share(usage: Usage, found: list[Captured]) -> None:
    """The usage of a call, so that its choices add up to it: the first has the prompt."""
    if len(found) == 1:
        found[0].usage = usage
        return
    for one in found:
        one.usage = Usage(completion_tokens=len(one.completion.ids) // 4)
    rest = usage.completion_tokens - sum(one.usage.completion_tokens for one in found[1:])
    found[0].usage = msgspec.structs.replace(usage, completion_tokens=max(0, rest))


def _choice(body: Body, taken: Taken) -> Captured:
    choice, ids = taken.choice, taken.ids
    prompt = body.prompt_token_ids if taken.prompt is None else taken.prompt
    found = Captured(
        choice=choice.index if 0 <= choice.index < MAX_CHOICE else 0,
        message=taken.message,
        finish_reason=choice.finish_reason,
        id=body.id,
        closed=choice.finish_reason in CLOSED and not isinstance(choice.stop_reason, str),
    )
    if ids is None or prompt is None:
        found.untrainable = "no_token_ids"
        return found
    try:
        found.prompt = _ids(prompt)
        sampled = _ids(ids)
        values = array("f", [entry.logprob for entry in taken.logprobs or ()])
    except (OverflowError, TypeError):
        found.untrainable = "bad_tokens"
        return found
    found.versions = _versions(choice.weight_versions, len(ids))
    if len(values) == len(ids) and math.isfinite(sum(values)):  # of doubles: none overflows
        found.completion = Completion(ids=sampled, logprobs=_little(values))
    else:
        found.completion = Completion(ids=sampled)
        found.untrainable = "length_mismatch" if values else "no_logprobs"
    return found


def _ids(ids: list[int]) -> bytes:
    return _little(array("I", ids))


def _little(values: "array[Any]") -> bytes:
    if sys.byteorder == "big":
        values.byteswap()
    return values.tobytes()


def _versions(spans: list[Weights] | None, n: int) -> tuple[VersionSpan, ...]:
    """The engine's spans, or none where they are not whole numbers in order over n tokens."""
    found = []
    at = 0
    for span in spans or ():
        label = span.version
        version = int(label) if isinstance(label, str) and label.isdecimal() else label
        if (
            not isinstance(version, int)
            or not 0 <= version <= MAX_COUNT
            or not at <= span.start <= span.end <= n
        ):
            return ()
        at = span.end
        found.append(VersionSpan(version, span.start, span.end))
    return tuple(found)


def _usage(usage: EngineUsage | None) -> Usage:
    if usage is None:
        return Usage()
    details = usage.prompt_tokens_details
    return Usage(
        prompt_tokens=_counted(usage.prompt_tokens),
        completion_tokens=_counted(usage.completion_tokens),
        cached_tokens=_counted(details.cached_tokens if details else 0),
    )


def _counted(n: int | None) -> int:
    """A count as turns hold it, whatever the engine says."""
    return min(max(0, n or 0), MAX_COUNT)


def error_of(body: bytes, status: int) -> str:
    """One line on an answer that is an error."""
    try:
        found = _wrong.decode(body)
    except UNREADABLE:
        found = Wrong()
    said = [text for text in (found.message, found.detail) if isinstance(text, str)]
    return error_text(found.error) or "".join(said[:1])[:500] or f"the engine answered {status}"


def error_text(error: Raw) -> str:
    """One line on the error inside an answer, "" if there is none."""
    if error == NULL:
        return ""
    try:
        value = msgspec.json.decode(error)
    except UNREADABLE:
        value = None
    text = value.get("message") if isinstance(value, dict) else value
    return str(text)[:500] if text else "the engine reported an error"
