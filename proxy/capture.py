"""What a reply becomes in a turn: pure, from the engine's bytes to ids, logprobs and words.

Token ids are the engine's own, never made again from text. What does not add up is named on the
turn (`untrainable`) and never guessed.
"""

import sys
from array import array
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import Raw, Struct

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
    token_ids: list[int] | None = None
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
    choices: list[Choice] = []
    usage: EngineUsage | None = None
    prompt_token_ids: list[int] | None = None
    error: Raw = Raw(b"null")


class Captured(Struct, kw_only=True):
    """A reply, as a turn records it."""

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


NULL: Final = Raw(b"null")
_body: Final = msgspec.json.Decoder(Body)
_encode: Final = msgspec.json.Encoder().encode


def whole(reply: bytes) -> Captured:
    """Capture a whole reply. One that cannot be read is an `error`, not an exception."""
    try:
        body = _body.decode(reply)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Captured(error=f"the engine's reply cannot be read: {str(error)[:200]}")
    if not body.choices:
        return Captured(id=body.id, error=_error(body.error) or "the engine's reply is empty")
    choice = body.choices[0]
    return _captured(
        body,
        choice,
        message=choice.message.copy(),  # else the turn's memory would hold the whole reply
        prompt=body.prompt_token_ids,
        ids=choice.token_ids,
        logprobs=choice.logprobs.content if choice.logprobs else None,
        several=len(body.choices) > 1,
    )


class Streamed:
    """Captures a stream, chunk by chunk."""

    def __init__(self) -> None:
        self._body = Body()
        self._choice = Choice()
        self._message: dict[str, Any] = {}
        self._prompt: list[int] | None = None
        self._ids: list[int] | None = None
        self._logprobs: list[Logprob] | None = None
        self._several = False
        self.ended = False
        """Whether a chunk had a finish reason."""
        self.error = ""

    def feed(self, data: bytes) -> bool:
        """Take in a chunk; tells whether the agent could take it for the end of the reply."""
        try:
            body = _body.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self.error = f"a chunk of the engine's stream cannot be read: {str(error)[:200]}"
            return True
        if body.error != NULL:
            self.error = _error(body.error)
            return True
        self._body.id = body.id or self._body.id
        self._body.usage = body.usage or self._body.usage
        if body.prompt_token_ids is not None and self._prompt is None:
            self._prompt = body.prompt_token_ids
        ends = False
        for choice in body.choices:
            ends = ends or choice.finish_reason is not None
            if choice.index == 0:
                self._take(choice)
            else:
                self._several = True
        self.ended = self.ended or ends
        return ends

    def _take(self, choice: Choice) -> None:
        merge(self._message, choice.delta)
        self._choice.finish_reason = choice.finish_reason or self._choice.finish_reason
        if choice.weight_versions:
            self._choice.weight_versions = joined(
                self._choice.weight_versions or [], choice.weight_versions
            )
        if choice.token_ids is not None:
            self._ids = (self._ids or []) + choice.token_ids
        if choice.logprobs is not None and choice.logprobs.content is not None:
            self._logprobs = (self._logprobs or []) + choice.logprobs.content

    def captured(self) -> Captured:
        """All chunks as one reply."""
        found = _captured(
            self._body,
            self._choice,
            message=Raw(_encode(self._message)) if self._message else Raw(b"null"),
            prompt=self._prompt,
            ids=self._ids,
            logprobs=self._logprobs,
            several=self._several,
        )
        found.error = self.error
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


def merge(message: dict[str, Any], delta: dict[str, Any]) -> None:
    """Add a chunk's delta to the message that the chunks before it made."""
    for name, value in delta.items():
        before = message.get(name)
        if name == "tool_calls" and isinstance(value, list):
            calls = before if isinstance(before, list) else []
            _merge_calls(calls, value)
            message[name] = calls
        elif isinstance(before, str) and isinstance(value, str) and name != "role":
            message[name] = before + value
        elif value is not None or name not in message:
            message[name] = value


def _merge_calls(calls: list[Any], deltas: list[Any]) -> None:
    for delta in deltas:
        if not isinstance(delta, dict):
            continue
        index = delta.get("index", 0)
        part = {name: value for name, value in delta.items() if name != "index"}
        if not isinstance(index, int) or not 0 <= index <= len(calls):
            index = len(calls)
        if index == len(calls):
            calls.append({})
        function = calls[index].pop("function", {})
        new = part.pop("function", None)
        for name, value in (new if isinstance(new, dict) else {}).items():
            before = function.get(name)
            if isinstance(before, str) and isinstance(value, str):
                function[name] = before + value
            elif value is not None:
                function[name] = value
        calls[index].update({name: value for name, value in part.items() if value is not None})
        calls[index]["function"] = function


def _captured(
    body: Body,
    choice: Choice,
    *,
    message: Raw,
    prompt: list[int] | None,
    ids: list[int] | None,
    logprobs: list[Logprob] | None,
    several: bool,
) -> Captured:
    found = Captured(
        message=message, finish_reason=choice.finish_reason, id=body.id, usage=_usage(body.usage)
    )
    if several:
        found.untrainable = "several_choices"
        return found
    if ids is None or prompt is None:
        found.untrainable = "no_token_ids"
        return found
    try:
        found.prompt = _ids(prompt)
        sampled = _ids(ids)
        values = array("f", [entry.logprob for entry in logprobs or ()])
    except (OverflowError, TypeError):
        found.untrainable = "bad_tokens"
        return found
    found.versions = _versions(choice.weight_versions, len(ids))
    if len(values) == len(ids) and np.isfinite(np.frombuffer(values, np.float32)).all():
        found.completion = Completion(ids=sampled, logprobs=_little(values))
    else:
        found.completion = Completion(ids=sampled)
        found.untrainable = "length_mismatch" if values else "no_logprobs"
    counted = body.usage.completion_tokens if body.usage else None
    if counted is not None and counted != len(ids):
        found.untrainable = "length_mismatch"
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
        if not isinstance(version, int) or version < 0 or not at <= span.start <= span.end <= n:
            return ()
        at = span.end
        found.append(VersionSpan(version, span.start, span.end))
    return tuple(found)


def _usage(usage: EngineUsage | None) -> Usage:
    if usage is None:
        return Usage()
    details = usage.prompt_tokens_details
    return Usage(
        prompt_tokens=max(0, usage.prompt_tokens),
        completion_tokens=max(0, usage.completion_tokens or 0),
        cached_tokens=max(0, (details.cached_tokens or 0) if details else 0),
    )


def error_of(body: bytes, status: int) -> str:
    """One line on an answer that is an error."""
    try:
        found = _body.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        found = Body()
    return _error(found.error) or f"the engine answered {status}"


def _error(error: Raw) -> str:
    if error == NULL:
        return ""
    try:
        value = msgspec.json.decode(error)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        value = None
    text = value.get("message") if isinstance(value, dict) else value
    return str(text)[:500] if text else "the engine reported an error"
