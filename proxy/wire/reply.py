"""From an engine's reply to a turn's ids, log probabilities and message. Pure.

Token ids are the engine's own; none is made from text. If something does not add up, the turn names
it (`untrainable`), and nothing is guessed.
"""

import math
import sys
from array import array
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from odradek.proxy.wire import shapes, version_spans
from odradek.proxy.wire.body import DEEPEST, NULL, UNREADABLE, Reader, error_text, read, wrong
from odradek.proxy.wire.choices import Numbering, renumbered
from odradek.proxy.wire.finish_reasons import ENDS, failure
from odradek.proxy.wire.merge import merge, says
from odradek.proxy.wire.shapes import NormalizedReply
from odradek.proxy.wire.surrogates import Halves
from odradek.proxy.wire.tool_calls import ToolCalls
from odradek.schemas.arrays import count
from odradek.schemas.codec import check_depth, check_text
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import Completion, Reply, Usage, VersionSpan
from odradek.schemas.http.reply import Choice, EngineUsage, Logprob, ReplyBody


class CapturedReply(Struct, kw_only=True):
    """One choice of a reply, as a turn records it."""

    choice: int = 0
    reply: Reply = msgspec.field(default_factory=Reply)
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
        """Its bytes, without those of a few short fields."""
        sampled = self.completion
        return len(self.reply.message) + len(self.prompt) + len(sampled.ids) + len(sampled.logprobs)


MAX_CHOICE: Final = 2**16
CLOSED: Final = frozenset({"stop", "tool_calls"})
_encode: Final = msgspec.json.Encoder().encode


def whole(reply: bytes, reader: Reader = read) -> list[CapturedReply]:
    """Capture a whole reply, choice by choice; one that cannot be read is an `error`.

    There is always at least one.
    """
    try:
        return choices(shapes.whole(reply, reader))
    except (InvalidRecord, *UNREADABLE) as error:
        return [unreadable(error)]


def unreadable(error: Exception) -> CapturedReply:
    """The result for an unreadable reply."""
    return CapturedReply(error=f"the engine's reply cannot be read: {str(error)[:200]}")


def choices(reply: NormalizedReply) -> list[CapturedReply]:
    """The same of one that could be read. Raises InvalidRecord for what no log's reader takes."""
    body = reply.body
    for choice in body.choices:  # all that is copied as it stands
        check_depth(bytes(choice.message), DEEPEST)
        check_text(bytes(choice.message))
    if not body.choices:
        return [CapturedReply(id=body.id, error=wrong(reply.data) or "the engine's reply is empty")]
    # Copied, else the turn's memory would hold the whole reply.
    states = [
        ChoiceState(
            choice=choice,
            message=choice.message.copy(),
            ids=choice.token_ids,
            prompt=choice.prompt_token_ids,
            logprobs=choice.logprobs.content if choice.logprobs else None,
        )
        for choice in body.choices
    ]
    captured = _captured(body, states, reply.spoilt)
    endings = (failure(choice.finish_reason) for choice in body.choices)
    # Its agent gets no reply, so none of its choices counts.
    error = _reported_error(reply) or next(filter(None, endings), "")
    for each in captured:
        each.error = error
    return captured


def _reported_error(reply: NormalizedReply) -> str:
    """The error that a reply, or a chunk, reports; "" if it reports none."""
    body = reply.body
    good = bool(body.choices) or body.usage is not None
    # An absent field becomes this very object, so nearly nothing is compared.
    if body.error is not NULL and (why := error_text(body.error)):
        return why
    if not good:
        return wrong(reply.data)
    for choice in body.choices:
        if choice.error is not NULL and (why := error_text(choice.error)):
            return why
        if choice.finish_reason is not None and choice.finish_reason not in ENDS:
            return failure(choice.finish_reason)
    return ""


class ChoiceState(Struct):
    """The state of one choice."""

    choice: Choice
    message: Raw = NULL
    merged: dict[str, Any] = {}
    """The message of a stream, so far."""
    ids: list[int] | None = None
    prompt: list[int] | None = None
    logprobs: list[Logprob | None] | None = None
    calls: ToolCalls | None = None
    """The tool calls of a stream, so far."""
    late_ids: bool = False
    """Whether words came before any ids: those that follow may be theirs, too."""
    lacks_ids: bool = False
    """Whether words came without ids when others had had some."""
    text_after_end: bool = False
    """Whether it said more after its end, where many clients stop reading."""

    def add(self, chunk: Choice) -> None:
        """Take in the choice of a chunk, of which there are as many as tokens."""
        merge(self.merged, chunk.delta)
        if chunk.finish_reason or self.choice.finish_reason:
            self._end(chunk)
        if chunk.stop_reason is not None:
            self.choice.stop_reason = chunk.stop_reason
        if chunk.weight_versions:
            spans = self.choice.weight_versions or []
            self.choice.weight_versions = version_spans.joined(spans, chunk.weight_versions)
        if (ids := chunk.token_ids) is not None:
            if self.ids is None:
                self.ids = [*ids]
            else:
                self.ids.extend(ids)
        elif not self.late_ids and not self.lacks_ids:
            self._miss(chunk.delta)
        if chunk.prompt_token_ids and not self.prompt:
            self.prompt = chunk.prompt_token_ids
        if (logprobs := chunk.logprobs) is not None and (content := logprobs.content) is not None:
            if self.logprobs is None:
                self.logprobs = [*content]
            else:
                self.logprobs.extend(content)

    def _end(self, chunk: Choice) -> None:
        """A chunk is the last one, or comes behind it."""
        if self.choice.finish_reason:
            self.text_after_end = self.text_after_end or says(chunk.delta)
        self.choice.finish_reason = chunk.finish_reason or self.choice.finish_reason

    def _miss(self, delta: dict[str, Any]) -> None:
        """A chunk has no ids."""
        if self.ids is None:
            self.late_ids = says(delta)
        else:
            self.lacks_ids = says(delta)


class StreamCapture:
    """Captures a stream, chunk by chunk.

    Args:
        reader: Its dialect's.
        seed: What ids are made of, beside the reply's own, where a tool call has none.
        expected: How many choices its call asked for; 0 if that is not known.
    """

    def __init__(self, reader: Reader = read, seed: str = "", expected: int = 0) -> None:
        self._read = reader
        self._seed = seed
        self._whole = ReplyBody()
        self._choices: dict[int, ChoiceState] = {}
        """By the engine's index."""
        self._numbering = Numbering(expected)
        self._spoilt = ""
        self._halves = Halves()
        self.data = b""
        """The last chunk as everybody may see it."""
        self.body = ReplyBody()
        """The last chunk, parsed, if it could be read."""
        self.bad = ""
        """The last chunk's error; "" for none."""
        self.error = ""

    @property
    def ended(self) -> bool:
        """Whether each choice that began has its finish reason."""
        choices = self._choices.values()
        return bool(choices) and all(state.choice.finish_reason is not None for state in choices)

    def feed(self, data: bytes) -> bool:
        """Take in a chunk; tells whether the agent could take it for the end of the reply."""
        self.bad, self.data = "", data
        try:
            check_depth(data, DEEPEST)
            # Nearly all chunks are plain: no character of theirs can be cut in two.
            halves = self._halves
            plain = not halves.waiting and data.isascii() and data.find(b"\\") < 0
            regular = shapes.chunk(data if plain else halves.whole(data), self._read)
        except (InvalidRecord, *UNREADABLE) as error:
            self.bad = self.error = (
                f"a chunk of the engine's stream cannot be read: {str(error)[:200]}"
            )
            return True
        ends = self._take(regular)
        choices = regular.body.choices
        # Nearly all hold one choice that goes on, and no word of an error.
        goes_on = len(choices) == 1 and not ends and choices[0].error is NULL
        if goes_on and regular.body.error is NULL:
            return False
        if why := _reported_error(regular):
            self.bad = self.error = why
            return True
        return ends

    def _take(self, regular: NormalizedReply) -> bool:
        body = self.body = regular.body
        self.data = regular.data
        whole = self._whole
        if body.id and body.id != whole.id:
            whole.id = body.id
        if body.usage is not None and (whole.usage is None or body.usage.counts):
            whole.usage = body.usage
        if regular.spoilt and not self._spoilt:
            self._spoilt = regular.spoilt
        if body.prompt_token_ids and not whole.prompt_token_ids:
            whole.prompt_token_ids = body.prompt_token_ids
        ends = mended = False
        for choice in body.choices:
            ends = ends or choice.finish_reason is not None
            state = self._choices.get(choice.index)
            if state is None:
                number = self._numbering.number(choice.index)
                state = self._choices[choice.index] = ChoiceState(Choice(index=number))
            if choice.delta.get("tool_calls"):
                mended = self._number(state, choice.delta) or mended
            state.add(choice)
        if mended:
            self.data = shapes.with_deltas(regular)
        if self._numbering.moved:
            self._renumber(regular)
        return ends

    def _renumber(self, regular: NormalizedReply) -> None:
        """Give the choices of a chunk the numbers that they have here."""
        for choice in regular.body.choices:
            choice.index = self._choices[choice.index].choice.index
        self.data = renumbered(self.data, regular)

    def _number(self, state: ChoiceState, delta: dict[str, Any]) -> bool:
        """Mend the pieces of tool calls into OpenAI's shape; returns whether any was changed."""
        if state.calls is None:
            state.calls = ToolCalls(f"{self._whole.id}:{self._seed}:{state.choice.index}")
        pieces = delta["tool_calls"]
        mended = state.calls.mended(pieces if isinstance(pieces, list) else [pieces])
        if mended is pieces:
            return False
        delta["tool_calls"] = mended
        return True

    def captured(self) -> list[CapturedReply]:
        """All chunks as one reply, choice by choice."""
        choices = sorted(self._choices.values(), key=lambda state: state.choice.index)
        choices = choices or [ChoiceState(Choice())]
        for state in choices:
            if state.merged or state.choice.finish_reason is not None:
                state.message = Raw(_encode(_whole_message(state.merged)))
        captured = _captured(self._whole, choices, self._spoilt or self._numbering.spoilt)
        for each in captured:
            each.error = self.error
        return captured


def _whole_message(message: dict[str, Any]) -> dict[str, Any]:
    """A stream's message with what each message has, though no chunk said it."""
    if message.get("role") and "content" in message:
        return message
    rest = {name: value for name, value in message.items() if name not in {"role", "content"}}
    role = message.get("role")
    return {"role": role or "assistant", "content": message.get("content"), **rest}


def _captured(body: ReplyBody, choices: list[ChoiceState], spoilt: str) -> list[CapturedReply]:
    captured = [_choice(body, state) for state in choices]
    if spoilt:
        for each in captured:
            each.untrainable = spoilt
    n = sum(len(state.ids or ()) for state in choices)
    counted = body.usage.completion_tokens if body.usage else None
    if counted is not None and counted != n:
        for each in captured:
            each.untrainable = each.untrainable or "length_mismatch"
    _share(_usage(body.usage), captured)
    return captured


def _share(usage: Usage, choices: list[CapturedReply]) -> None:
    """The usage of a call, so that its choices add up to it: the first has the prompt."""
    if len(choices) == 1:
        choices[0].usage = usage
        return
    for each in choices:
        each.usage = Usage(completion_tokens=count(each.completion.ids))
    rest = usage.completion_tokens - sum(each.usage.completion_tokens for each in choices[1:])
    choices[0].usage = msgspec.structs.replace(usage, completion_tokens=max(0, rest))


def _choice(body: ReplyBody, state: ChoiceState) -> CapturedReply:
    choice, ids = state.choice, state.ids
    prompt = state.prompt or body.prompt_token_ids
    captured = CapturedReply(
        choice=choice.index if 0 <= choice.index < MAX_CHOICE else 0,
        reply=Reply(message=state.message, finish_reason=choice.finish_reason),
        id=body.id,
        closed=choice.finish_reason in CLOSED and not isinstance(choice.stop_reason, str),
    )
    # Only the engine's count can prove that ids that came late cover all of the text.
    unsure = state.late_ids and (body.usage is None or body.usage.completion_tokens is None)
    if ids is None or not prompt or state.lacks_ids or unsure:
        captured.untrainable = "no_token_ids"
        return captured
    try:
        captured.prompt = _ids(prompt)
        sampled = _ids(ids)
    except OverflowError:
        captured.untrainable = "bad_tokens"
        return captured
    captured.versions = version_spans.versions(choice.weight_versions, len(ids))
    captured.completion = Completion(ids=sampled)
    values = _logprobs(state.logprobs)
    if values is None:
        captured.untrainable = "no_logprobs"
    elif len(values) == len(ids) and math.isfinite(sum(values)):  # of doubles: none overflows
        captured.completion = Completion(ids=sampled, logprobs=_little(values))
    else:
        captured.untrainable = "length_mismatch"
    if state.text_after_end:
        captured.untrainable = captured.untrainable or "text_after_end"
    return captured


def _logprobs(entries: list[Logprob | None] | None) -> "array[float] | None":
    """The numbers; None if there are none, or if some token has none."""
    try:
        return array("f", [entry.logprob for entry in entries]) if entries else None  # type: ignore[union-attr, misc]  # what is None raises
    except (AttributeError, TypeError, OverflowError):
        return None


def _ids(ids: list[int]) -> bytes:
    return _little(array("I", ids))


def _little(values: "array[Any]") -> bytes:
    if sys.byteorder == "big":
        values.byteswap()
    return values.tobytes()


def _usage(usage: EngineUsage | None) -> Usage:
    if usage is None:
        return Usage()
    return Usage(
        prompt_tokens=_counted(usage.prompt),
        completion_tokens=_counted(usage.completion),
        cached_tokens=_counted(usage.cached),
    )


def _counted(n: int) -> int:
    """A count as turns hold it, whatever the engine says."""
    return min(n, version_spans.MAX_COUNT)
