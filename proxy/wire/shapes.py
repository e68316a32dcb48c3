"""Replies of engines and gateways, in the shape that OpenAI documents, where they have another.

Engines and the gateways before them speak chat completions, each in its own way: null or nothing
where an object or a list belongs, numbers as floats or text, content as a list of parts, other
words for why a reply ended. A reply that strict types take passes untouched; else it is read
leniently, mended, and written anew, so the log, the translators and the agent all see the same.
Null is absent. What only a turn needs (ids, log probabilities, versions) costs the agent nothing
where it is wrong: it is left out, and the turn says why.
"""

import json
from functools import cache
from typing import Any, Final

import msgspec
from msgspec import Struct

from odradek.proxy.wire.body import DEEPEST, NULL, UNREADABLE, Reader, empty, harmless
from odradek.proxy.wire.finish_reasons import ENDS, ending, in_string
from odradek.proxy.wire.tool_calls import TEXTS as CALLS
from odradek.proxy.wire.tool_calls import text_of, whole_calls, whole_number
from odradek.schemas.codec import check_depth
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.http.reply import Choice, ReplyBody, WeightVersions

REASONING: Final = ("reasoning", "reasoning_content", "thinking")
"""How engines name what a model thought, newer ones first."""
TEXTS: Final = ("content", "refusal", *REASONING)
TOKENS: Final = ("token_ids", "prompt_token_ids")
COUNTS: Final = ("prompt_tokens", "completion_tokens", "total_tokens")

UNSURE: Final = "unexpected_choices"
"""Why a reply is not trained on: nobody knows which of its choices the agent has seen."""

_encode: Final = msgspec.json.Encoder().encode


class NormalizedReply(Struct, gc=False):
    """A reply, or a chunk, as everybody sees it."""

    data: bytes
    """The engine's own where nothing had to be mended."""
    body: ReplyBody
    spoilt: str = ""
    """Why its tokens cannot be trained on, where they had to be left out."""


class _Function(Struct):
    name: str
    arguments: str


class _Custom(Struct):
    name: str
    input: str


class _Call(Struct):
    id: str
    type: str
    function: _Function | None = None
    custom: _Custom | None = None
    index: int | None = None


class _StrictMessage(Struct):
    role: str
    content: str | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    thinking: str | None = None
    tool_calls: list[_Call] | None = None


_strict_message: Final = msgspec.json.Decoder(_StrictMessage)


def whole(reply: bytes, reader: Reader, seed: str = "") -> NormalizedReply:
    """A whole reply. Raises what `UNREADABLE` lists.

    Args:
        reply: As the engine sent it.
        reader: Its dialect's.
        seed: What ids are made of, beside the reply's own, where a tool call has none.
    """
    try:
        body = reader(reply)
    except msgspec.MsgspecError:
        return _mended(reply, reader, seed)
    regular = all(map(_is_regular, body.choices)) and _distinct(body.choices)
    if regular and not harmless(body.error):
        return NormalizedReply(reply, body)
    return _mended(reply, reader, seed)


def chunk(data: bytes, reader: Reader) -> NormalizedReply:
    """A chunk of a stream; its tool calls stay for `ToolCalls` to mend. Raises the same."""
    try:
        body = reader(data)
    except msgspec.MsgspecError:
        return _mended(data, reader, None)
    return (
        NormalizedReply(data, body)
        if _is_regular_chunk(body, data)
        else _mended(data, reader, None)
    )


def with_deltas(regular: NormalizedReply) -> bytes:
    """The chunk anew, with what the deltas of its choices have become."""
    value = msgspec.json.decode(regular.data)
    for entry, choice in zip(value["choices"], regular.body.choices, strict=True):
        entry["delta"] = choice.delta
    return _encode(value)


def chunks(reply: bytes, reader: Reader) -> list[bytes]:
    """A whole reply as the chunks of a stream: some gateways send one when asked for a stream.

    What is no reply, such as an error, stays as it is: it cannot be taken for a chunk either.
    """
    try:
        regular = whole(reply, reader)
        value = msgspec.json.decode(regular.data)
    except UNREADABLE:
        return [b" ".join(reply.splitlines())]
    if not regular.body.choices:
        return [_encode(value)]
    chat = "message" in value["choices"][0]
    value["object"] = "chat.completion.chunk" if chat else "text_completion"
    usage = value.pop("usage", None)
    for choice in value["choices"]:
        if (message := choice.pop("message", None)) is not None:
            for place, call in enumerate(message.get("tool_calls") or ()):
                call["index"] = place
            choice["delta"] = message
    return [_encode(value), *([_encode({**value, "choices": [], "usage": usage})] if usage else [])]


def _is_regular_chunk(body: ReplyBody, data: bytes) -> bool:
    choices = body.choices
    for choice in choices:
        word = choice.finish_reason
        if (word is not None and word not in ENDS) or not _has_texts_only(choice.delta):
            return False
        if not choice.delta and b'"delta"' not in data:
            return False
        if choice.error is not NULL and harmless(choice.error):
            return False
    if body.error is not NULL and body.error != NULL:
        return not harmless(body.error) and _distinct(choices)
    return _distinct(choices) if choices else b'"choices"' in data


def _is_regular(choice: Choice) -> bool:
    word = choice.finish_reason
    if (word is not None and word not in ENDS) or harmless(choice.error):
        return False
    try:
        message = _strict_message.decode(choice.message)
    except UNREADABLE:
        return False
    calls = message.tool_calls
    if not calls:
        return True
    if len(calls) > 1 and len({call.id for call in calls}) < len(calls):
        return False
    return all(
        call.id
        and call.index in {None, place}
        and (call.type not in CALLS or getattr(call, call.type) is not None)
        for place, call in enumerate(calls)
    )


def _distinct(choices: list[Choice]) -> bool:
    return len(choices) < 2 or len({choice.index for choice in choices}) == len(choices)


def _has_texts_only(delta: dict[str, Any]) -> bool:
    """Whether a chunk's texts are texts."""
    if len(delta) == 1 and delta.get("content").__class__ is str:
        return True  # as nearly all are
    for name, text in delta.items():
        if text.__class__ is not str and text is not None and name in TEXTS:
            return False
    return True


def _mended(data: bytes, reader: Reader, seed: str | None) -> NormalizedReply:
    """The same, read leniently; `seed` is None for a chunk."""
    value = _loads(data)
    choices = value.get("choices") if isinstance(value, dict) else 0
    if not isinstance(choices, list | dict | None):
        return NormalizedReply(data, reader(data))
    spoilt = _tokens(value)
    _no_error(value)
    value["id"] = text_of(value.get("id"))
    if value.get("usage") is not None:
        value["usage"] = _usage(value["usage"])
    entries = choices if isinstance(choices, list) else [choices]
    value["choices"] = [choice for choice in entries if isinstance(choice, dict)]
    for place, choice in enumerate(value["choices"]):
        spoilt = _choice(choice, place) or spoilt
        if _of_texts(reader):
            choice["text"] = (
                _text(_first_value(choice, "text", "delta", "message", "content")) or ""
            )
        elif seed is None:
            _delta(choice)
        else:
            _message(choice, f"{value['id']}:{seed}:{choice['index']}")
    if len({choice["index"] for choice in value["choices"]}) < len(value["choices"]):
        if seed is None:
            spoilt = spoilt or UNSURE  # translated dialects show one of them
        for place, choice in enumerate(value["choices"] if seed is not None else ()):
            choice["index"] = place
    clean = _encode(value)
    return NormalizedReply(clean, reader(clean), spoilt)


def _loads(data: bytes) -> Any:
    """JSON, NaN and Infinity among it, which some engines write where they have no number."""
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        try:
            value = json.loads(data)
            _encode(value)  # fails on half a surrogate pair, which no log takes
        except ValueError as error:
            raise msgspec.DecodeError(str(error)) from None
        return value


def _tokens(value: dict[str, Any]) -> str:
    """Mend ids in place; returns what is wrong with ids that had to be left out, or ""."""
    spoilt = ""
    for name in TOKENS:
        ids = value.get(name)
        if ids is None:
            continue
        numbers = [whole_number(entry) for entry in ids] if isinstance(ids, list) else [None]
        value[name] = numbers
        if None in numbers:
            value[name] = None
            spoilt = "bad_tokens"
    return spoilt


def _no_error(value: dict[str, Any]) -> None:
    """Leave out a field `error` that reports none: clients take any value there for an error."""
    if value.get("error") is not None and empty(value["error"]):
        del value["error"]


def _choice(choice: dict[str, Any], place: int) -> str:
    """Mend all but the message, in place; returns why its tokens are of no use, or ""."""
    spoilt = _tokens(choice)
    _no_error(choice)
    index = whole_number(choice.get("index"))
    choice["index"] = place if index is None else index
    word = choice.get("finish_reason")
    choice["finish_reason"] = ending(word)
    if choice.get("stop_reason") is None:
        if isinstance(word, dict) and isinstance(word.get("matched"), str):
            choice["stop_reason"] = word["matched"]
        elif in_string(word):
            choice["stop_reason"] = ""  # one of the stop strings; nobody says which
    logprobs = choice.get("logprobs")
    if logprobs is not None:
        choice["logprobs"] = _logprobs(logprobs) if isinstance(logprobs, dict) else None
    if choice.get("weight_versions") is not None:
        try:
            msgspec.convert(choice["weight_versions"], list[WeightVersions])
        except msgspec.ValidationError:
            choice["weight_versions"] = None
    return spoilt


def _logprobs(logprobs: dict[str, Any]) -> dict[str, Any]:
    """Null where a token has no number, and no list where there is none."""
    mended = dict(logprobs)
    for name in ("content", "token_logprobs"):
        values = mended.get(name)
        if values is None:
            continue
        mended[name] = [_logprob(entry) for entry in values] if isinstance(values, list) else None
    return mended


def _logprob(entry: Any) -> Any:
    if isinstance(entry, dict):
        return {**entry, "logprob": _logprob(entry.get("logprob"))}
    return entry if isinstance(entry, int | float) and not isinstance(entry, bool) else None


def _usage(usage: Any) -> dict[str, Any] | None:
    if not isinstance(usage, dict):
        return None
    mended = dict(usage)
    for name in mended.keys() & set(COUNTS):
        mended[name] = whole_number(mended[name])
    details = mended.get("prompt_tokens_details")
    if details is not None:
        details = dict(details) if isinstance(details, dict) else {}
        if "cached_tokens" in details:
            details["cached_tokens"] = whole_number(details["cached_tokens"])
        mended["prompt_tokens_details"] = details or None
    return mended


@cache
def _of_texts(reader: Reader) -> bool:
    """Whether a reader is for text completions: such a reader makes a delta of their text."""
    return bool(reader(b'{"choices":[{"text":"so"}]}').choices[0].delta)


def _first_value(choice: dict[str, Any], place: str, *others: str) -> Any:
    """The first value that a choice has in these places; the other places are removed."""
    candidates = [choice.get(place), *(choice.pop(name, None) for name in others)]
    return next((candidate for candidate in candidates if candidate is not None), None)


def _delta(choice: dict[str, Any]) -> None:
    """Mend a chunk's delta, in place."""
    choice["delta"] = _with_texts(_first_value(choice, "delta", "message", "text", "content"))
    if isinstance(calls := choice["delta"].get("tool_calls"), dict):
        choice["delta"]["tool_calls"] = [calls]
    elif not isinstance(calls, list | None):
        del choice["delta"]["tool_calls"]


def _message(choice: dict[str, Any], seed: str) -> None:
    """The same of a whole message."""
    message = _first_value(choice, "message", "delta", "text", "content")
    try:
        check_depth(_encode(message), DEEPEST)
    except InvalidRecord as error:
        raise msgspec.DecodeError(str(error)) from None
    mended = _with_texts(message)
    mended["role"] = mended["role"] if isinstance(mended.get("role"), str) else "assistant"
    calls = mended.get("tool_calls")
    if calls is not None:
        calls = calls if isinstance(calls, list) else [calls]
        mended["tool_calls"] = whole_calls(calls, seed)
    choice["message"] = {
        "role": mended.pop("role"),
        "content": mended.pop("content", None),
        **mended,
    }


def _with_texts(raw: Any) -> dict[str, Any]:
    """A message or a delta whose texts are texts."""
    if not isinstance(raw, dict):
        raw = {} if raw is None else {"content": raw}
    mended = dict(raw)
    content = mended.get("content")
    if isinstance(content, list):
        thoughts = [part for part in content if _is_reasoning(part)]
        mended["content"] = _text([part for part in content if not _is_reasoning(part)])
        if thoughts and not any(mended.get(name) for name in REASONING):
            mended["reasoning_content"] = _text(thoughts)
    for name in TEXTS:
        if name in mended:
            mended[name] = _text(mended[name])
    return mended


def _is_reasoning(part: Any) -> bool:
    # No set: a type may be no text, and have no hash.
    return isinstance(part, dict) and part.get("type") in ("thinking", "reasoning")


def _text(value: Any) -> str | None:
    """The text of a value, of a part of a message, or of a list of parts; None if there is none."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        texts = [text for entry in value if (text := _text(entry)) is not None]
        return "".join(texts) if texts else None
    if isinstance(value, dict):
        for name in ("text", "content", "thinking", "reasoning", "refusal"):
            if (text := _text(value.get(name))) is not None:
                return text
        return None
    return text_of(value)
