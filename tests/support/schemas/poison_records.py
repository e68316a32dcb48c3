"""The poison corpus: what a topic may hold besides good records.

Made from a good record, the same every time; the huge ones are made when asked for, not stored.
"""

import json
from functools import lru_cache
from typing import Any, NamedTuple

from odradek.schemas.ids import partition_for

HUGE = 10 * 1024 * 1024
DEEP = 200_000
NO_UTF8 = b"\xff\xfe"
"""Two bytes that start no UTF-8 text."""


class Poison(NamedTuple):
    """A record that no consumer can use."""

    name: str
    reasons: frozenset[str]
    """Of its dead letter: one of them."""
    value: bytes | None
    key: bytes | None
    partition: int
    headers: tuple[tuple[str, bytes], ...] = ()


def corpus(
    good: bytes,
    key: str,
    partitions: int,
    headers: tuple[tuple[str, bytes], ...] = (),
    *,
    huge: int = HUGE,
    deep: int = DEEP,
) -> list[Poison]:
    """All kinds of poison for a topic, in a fixed order.

    Args:
        good: The value of a record that the topic's consumer takes.
        key: Its key.
        partitions: Of the topic.
        headers: That every record has there, such as A2A's operation.
        huge: Bytes of the huge one.
        deep: Brackets of the deep one.
    """
    home = partition_for(key, partitions)

    def made(name: str, reasons: str, value: bytes | None, **more: Any) -> Poison:
        fields = {"key": key.encode(), "partition": home, "headers": headers, **more}
        return Poison(name, frozenset(reasons.split()), value, **fields)

    found = [
        made("truncated", "not_json", good[: len(good) // 2]),
        made("wrong types", "bad_schema not_json", _wrong_types(good)),
        made("huge", "too_large bad_schema", _huge(huge)),
        made("deep", "too_deep", _deep(deep)),
        made("bad utf-8", "not_json", _inside(good, NO_UTF8)),
        made("lone surrogate", "not_json", _inside(good, b"\\ud800")),
        made("nan", "not_json", b'{"x":NaN,' + good[1:]),
        made("null key", "wrong_key", good, key=None),
        made("a key that is no utf-8", "wrong_key wrong_partition", good, key=NO_UTF8,
             partition=partition_for(NO_UTF8.decode(errors="surrogateescape"), partitions)),
        made("tombstone", "tombstone", None),
    ]  # fmt: skip
    if "type" in json.loads(good):
        v2 = _changed(good, type="turn.v2", specversion="2.0")
        found.append(made("unknown tag", "unknown_type", _changed(good, type="surprise")))
        found.append(made("future version", "unknown_type", v2))
    else:  # A2A names operation and version in headers
        other = {"a2a-operation": b"Surprise", "a2a-version": b"9.0"}
        reasons = {"a2a-operation": "method_not_found", "a2a-version": "bad_version"}
        for name, text in other.items():
            changed = tuple((k, text if k == name else v) for k, v in headers)
            found.append(made(name, reasons[name], good, headers=changed))
    if partitions > 1:
        wrong = (home + 1) % partitions
        found.append(made("wrong partition", "wrong_partition", good, partition=wrong))
    return found


@lru_cache
def _huge(size: int) -> bytes:
    return b"[" + b"0," * (size // 2) + b"0]"


@lru_cache
def _deep(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def _changed(good: bytes, **fields: str) -> bytes:
    return json.dumps({**json.loads(good), **fields}).encode()


def _wrong_types(good: bytes) -> bytes:
    """Every field but the tag is of a type that nothing has."""
    changed = {name: [[7]] for name in json.loads(good) if name != "type"}
    return json.dumps({**json.loads(good), **changed}).encode()


def _inside(good: bytes, text: bytes) -> bytes:
    """The good record with a field that no reader knows, and that holds this text."""
    return b'{"surprise":"' + text + b'",' + good[1:]
