"""Events to bytes and back, with CloudEvents headers and limits before parsing.

JSON by msgspec, one event per record. Headers follow the CloudEvents 1.0 Kafka binding in binary
mode: `ce_*` headers hold the context attributes, the value holds the data.
"""

import hashlib
import math
import re
import time
from collections.abc import Callable, Hashable
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Any, Final

import msgspec

from odradek.schemas import events
from odradek.schemas.arrays import check_floats, check_ids
from odradek.schemas.errors import InvalidRecord, NoNumber, NotFinite
from odradek.schemas.numbers import jsonable, number
from odradek.schemas.topics import Topic

Headers = tuple[tuple[str, bytes], ...]

MAX_BYTES: Final = 16 * 1024 * 1024
"""Of a value, where its topic does not say less."""
MAX_DEPTH: Final = 64
"""Deepest nesting of JSON that is parsed at all; agents' messages stay far below it."""

SHORT: Final = 1024
"""Bytes up to which brackets are counted one by one."""

CHILD_NUMBERS: Final = ("own", "parent", "failure_reward")
"""Numbers of a task's rule for a child's reward."""

_encoder: Final = msgspec.json.Encoder(enc_hook=jsonable, decimal_format="number")
_QUOTED: Final = re.compile(r"'.*'", re.DOTALL)
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")


@lru_cache(maxsize=64)
def _decoder(kind: Hashable) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def encode(event: events.Event) -> bytes:
    """An event as the value of a record.

    Raises InvalidRecord for what no reader would accept (see `check`).
    """
    numbered = _NUMBERED.get(type(event))
    if numbered is not None:
        event = numbered(event)
    check(event)
    try:
        return _encoder.encode(event)
    except (
        TypeError,
        ValueError,
        OverflowError,
    ) as error:  # of `jsonable`: a person's object, deep in a field
        raise InvalidRecord("bad_schema", str(error)) from None


def decode(value: bytes | None, kind: Any, *, max_bytes: int = MAX_BYTES) -> Any:
    """The event in a record's value.

    Args:
        value: The record's value. A tombstone (None) is no event.
        kind: An event type or a union of tagged ones, such as `events.TurnsEvent`.
        max_bytes: Larger values are refused before anything is parsed.

    Raises:
        InvalidRecord: With reason `tombstone`, `too_large`, `too_deep`, `not_json`,
            `unknown_type`, `bad_schema`, `bad_array` or `not_finite`.
    """
    return _read(_decoder(kind), max_bytes, value)


def reader(kind: Any, *, max_bytes: int = MAX_BYTES) -> Callable[[bytes | None], Any]:
    """`decode` for one kind of event: what a loop over many records calls."""
    return partial(_read, _decoder(kind), max_bytes)


def head_reader(kind: Any) -> Callable[[bytes | None], Any]:
    """A reader for a part of events that somebody has read whole before.

    So depth, text and arrays are not looked at again, which takes longer than to read the part.
    It raises InvalidRecord for what is no such event.
    """
    return partial(_parsed, _decoder(kind))


def _read(decoder: msgspec.json.Decoder[Any], max_bytes: int, value: bytes | None) -> Any:
    if value is None:
        raise InvalidRecord("tombstone", "the record has no value")
    if len(value) > max_bytes:
        raise InvalidRecord("too_large", f"{len(value)} bytes, at most {max_bytes}")
    check_depth(value)
    check_text(value)
    event = _parsed(decoder, value)
    check(event)
    return event


def _parsed(decoder: msgspec.json.Decoder[Any], value: bytes | None) -> Any:
    try:
        return decoder.decode(value or b"")
    except msgspec.ValidationError as error:
        message = unquoted(error)
        tag = message.startswith("Invalid value") and "$.type" in message
        raise InvalidRecord("unknown_type" if tag else "bad_schema", message) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRecord("not_json", unquoted(error)) from None
    except RecursionError:
        raise InvalidRecord("too_deep", "nested too deep") from None


def unquoted(error: Exception) -> str:
    """What a decoder says is wrong, without the content that it quotes."""
    return _QUOTED.sub("'…'", str(error))[:200]


def check_text(value: bytes) -> None:
    """Refuse JSON that is no UTF-8, or that escapes half of a surrogate pair.

    Decoders skip what they do not keep, and copy `Raw` fields as they stand: without this a bad
    string inside one would pass here, and break a reader further down.
    """
    if not value.isascii():
        try:
            value.decode()
        except UnicodeDecodeError as error:
            raise InvalidRecord("not_json", f"no UTF-8 at byte {error.start}") from None
    # One byte is found many times faster than two, and most texts have no escapes at all. `in`
    # would try its operand as a number first, which takes longer than to search a short text.
    if value.find(b"\\") >= 0 and value.find(b"\\u") >= 0 and _SURROGATE.search(value):
        try:
            msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError) as error:
            raise InvalidRecord("not_json", unquoted(error)) from None


def check_depth(value: bytes, limit: int = MAX_DEPTH) -> None:
    """Refuse JSON that nests deeper than `limit` before a recursive parser sees it.

    A cheap bound first: nesting takes as many opening brackets, which C counts. Only a value with
    more of them than the limit is walked, outside strings.
    """
    # Nearly all chunks of streams are short.
    opens = value.count(b"[") + value.count(b"{") if len(value) < SHORT else _opens(value, limit)
    if opens <= limit:
        return
    bare = _strip_strings(value)
    depth = 0
    for byte in bare:
        if byte in b"[{":
            depth += 1
            if depth > limit:
                raise InvalidRecord("too_deep", f"nested deeper than {limit}")
        elif byte in b"]}":
            depth -= 1


def _opens(value: bytes, limit: int) -> int:
    """How many brackets open in a long value, or more than `limit` of them."""
    # A search takes 32 bytes at a time where a count takes one, and long texts have few of them.
    count = 0
    for bracket in (b"[", b"{"):
        at = value.find(bracket)
        while at >= 0 and count <= limit:
            count += 1
            at = value.find(bracket, at + 1)
    return count


def _strip_strings(value: bytes) -> bytes:
    """The brackets of JSON text outside its strings, in order."""
    if b"\\" in value:
        value = value.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside = b"".join(value.split(b'"')[::2])
    return outside.translate(None, delete=bytes(set(range(256)) - set(b"[]{}")))


def check(event: Any) -> None:
    """Hold an event against what its types cannot say: array lengths, finite numbers, spans."""
    checker = _CHECKS.get(type(event))
    if checker is not None:
        checker(event)


def _finite(name: str, value: float | None) -> None:
    if value is not None and not math.isfinite(value):
        raise InvalidRecord("not_finite", f"{name} is not finite")


def _check_turn(turn: events.Turn) -> None:
    check_ids(turn.prompt.ids)
    n = check_ids(turn.completion.ids)
    logprobs = check_floats(turn.completion.logprobs)
    if logprobs not in {0, n}:
        raise InvalidRecord("bad_array", f"{n} sampled ids, but {logprobs} log probabilities")
    _check_versions(turn.versions, n)


def _check_versions(versions: tuple[events.VersionSpan, ...], n: int) -> None:
    at = 0
    for span in versions:
        if not at <= span.start <= span.end <= n:
            raise InvalidRecord("bad_array", "version spans overlap or leave the tokens")
        at = span.end


def _check_episode(episode: events.Episode) -> None:
    _finite("reward", episode.reward)
    for name, value in episode.components.items():
        _finite(name, value)
    valued = {""}
    for child in episode.children:
        _check_child(child)
        if child.reward is not None:
            valued.add(child.episode_id)
    for sequence in episode.sequences:
        if sequence.child not in valued:
            raise InvalidRecord("bad_schema", "a sequence is of a child that has no reward here")
        n = check_ids(sequence.ids)
        at = sampled = 0
        for span in sequence.spans:
            if not at <= span.start <= span.end <= n:
                raise InvalidRecord("bad_array", "sampled spans overlap or leave the tokens")
            _finite("temperature", span.temperature)
            at = span.end
            sampled += span.end - span.start
        if check_floats(sequence.logprobs) != sampled:
            raise InvalidRecord(
                "bad_array", "sampled tokens and log probabilities differ in number"
            )
        _check_versions(sequence.versions, n)


def _check_child(child: events.ChildEpisode) -> None:
    for name in ("reward", "own", "share"):
        _finite(f"children.{name}", getattr(child, name))
    for name, value in child.components.items():
        _finite(name, value)


def _check_reward(reward: events.Reward) -> None:
    _finite("value", reward.value)


def _check_timeouts(name: str, timeouts: events.Timeouts) -> None:
    for field in timeouts.__struct_fields__:
        _finite(f"{name}.{field}", getattr(timeouts, field))


def _check_wanted(event: events.Task | events.EpisodeOpened) -> None:
    _finite("failure_reward", event.failure_reward)
    for name, weight in event.rewards.items():
        _finite(f"rewards.{name}", weight)
    _check_timeouts("timeouts", event.timeouts)
    if isinstance(event, events.EpisodeOpened):
        _finite("own_weight", event.own_weight)
        _finite("parent_weight", event.parent_weight)
        return
    for agent, rule in event.children.items():
        for name in CHILD_NUMBERS:
            _finite(f"children.{agent}.{name}", getattr(rule, name))
        for name, weight in rule.rewards.items():
            _finite(f"children.{agent}.rewards.{name}", weight)


def _check_batch(batch: events.Batch) -> None:
    for pointer in batch.episodes:
        if not math.isfinite(pointer.reward):  # without a call: there are many
            _finite("reward", pointer.reward)


def _number(name: str, value: Any) -> float:
    """A person's number as a float; Python's own stay as they are, and so do their bytes."""
    if type(value) is float:
        return value  # finite or not, `check` says
    try:
        converted = number(value, name)
    except NoNumber as error:
        raise InvalidRecord("bad_schema", str(error)) from None
    except NotFinite as error:
        raise InvalidRecord("not_finite", str(error)) from None
    return value if type(value) is int else converted


def _numbered_reward(reward: events.Reward) -> events.Reward:
    return msgspec.structs.replace(reward, value=_number("value", reward.value))


def _numbered_task(task: events.Task) -> events.Task:
    timeouts = {
        field: _number(f"timeouts.{field}", getattr(task.timeouts, field))
        for field in task.timeouts.__struct_fields__
    }
    return msgspec.structs.replace(
        task,
        rewards={name: _number(f"rewards.{name}", of) for name, of in task.rewards.items()},
        failure_reward=None
        if task.failure_reward is None
        else _number("failure_reward", task.failure_reward),
        children={agent: _numbered_child(agent, rule) for agent, rule in task.children.items()},
        # A default that was made anew would be written.
        timeouts=task.timeouts if task.timeouts == _DEFAULT else events.Timeouts(**timeouts),
    )


def _numbered_child(agent: str, rule: events.ChildReward) -> events.ChildReward:
    where = f"children.{agent}"
    weights = rule.rewards.items()
    return events.ChildReward(
        **{name: _number(f"{where}.{name}", getattr(rule, name)) for name in CHILD_NUMBERS},
        rewards={name: _number(f"{where}.rewards.{name}", of) for name, of in weights},
    )


_DEFAULT: Final = events.Timeouts()
_NUMBERED: Final[dict[type, Callable[[Any], events.Event]]] = {
    events.Reward: _numbered_reward,
    events.Task: _numbered_task,
}
"""Events that people make: their numbers come from any library."""

_CHECKS: Final[dict[type, Any]] = {
    events.Task: _check_wanted,
    events.EpisodeOpened: _check_wanted,
    events.Turn: _check_turn,
    events.Episode: _check_episode,
    events.Reward: _check_reward,
    events.Batch: _check_batch,
}


def digest(value: bytes) -> str:
    """The sha256 of a record's value, in hexadecimal: how pointers know an episode again."""
    return hashlib.sha256(value).hexdigest()


def _type_name(event: events.Event) -> str:
    """The CloudEvents type of an event, such as `odradek.turn.v1`."""
    return f"odradek.{type(event).__struct_config__.tag}.v1"


def headers(
    event: events.Event,
    *,
    source: str,
    subject: str,
    event_id: str,
    traceparent: str | None = None,
    at: datetime | None = None,
) -> Headers:
    """CloudEvents headers of an event.

    Args:
        event: What the record's value holds.
        source: Who writes, such as `/proxy/1f3a`.
        subject: The record's key.
        event_id: Unique with the source, and the same when the same event is sent again.
        traceparent: W3C trace context, where there is one.
        at: When it happened; now if not given.
    """
    stamp = at.isoformat().replace("+00:00", "Z") if at else _stamp(time.time())
    pairs = [
        ("ce_specversion", b"1.0"),
        ("ce_type", _type_name(event).encode()),
        ("ce_source", source.encode()),
        ("ce_id", event_id.encode()),
        ("ce_time", stamp.encode()),
        ("ce_subject", subject.encode()),
        ("content-type", b"application/json"),
    ]
    if traceparent:
        pairs.append(("traceparent", traceparent.encode()))
    return tuple(pairs)


def _stamp(now: float) -> str:
    """A time to the millisecond, as RFC 3339 has it."""
    second, millisecond = divmod(int(now * 1000), 1000)
    return f"{_second(second)}.{millisecond:03}Z"


@lru_cache(maxsize=4)
def _second(now: int) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def header(pairs: Any, name: str) -> str | None:
    """The last value of a header as text, or None."""
    for key, value in reversed(tuple(pairs or ())):
        if key == name:
            return value.decode(errors="replace") if value is not None else None
    return None


def union(topic: Topic) -> Any:
    """The union of a topic's event types, for `decode`."""
    kind: Any = topic.types[0]
    for other in topic.types[1:]:
        kind = kind | other
    return kind
