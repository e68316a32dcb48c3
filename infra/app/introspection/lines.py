"""A conversation through an episode's turns: which turn goes on where another ended. Pure."""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from odradek.infra.app.datasets.messages import Row, message_of
from odradek.schemas.events import Turn

ROUNDS: Final = 4
"""So often the same words make a loop."""
PERIODS: Final = range(1, 5)
"""Turns of one round."""
CLIPPED: Final = 80
"""Characters of a text that evidence quotes."""


class ReadTurn(Struct, frozen=True, kw_only=True):
    """A turn, its place, and the messages in it."""

    at: str
    turn: Turn
    new: tuple[Row, ...]
    """Messages that its request brings, behind those of its base and behind the policy's reply."""
    reply: Row | None
    """None where there is none."""
    goes_on: str
    """Id of the turn whose history, with its reply, it goes on with; empty: none."""


class Loop(Struct, frozen=True, kw_only=True):
    """A stretch of a conversation in which the same words came again and again."""

    period: int
    """Turns of one round."""
    rounds: int
    quoted: str
    """Of a reply in it."""
    digests: tuple[str, ...] = ()
    """Of the calls of tools in a round; see `call_digest`."""
    places: tuple[str, ...] = ()
    """Of its first turn and its last."""


def read_turns(turns: Sequence[tuple[str, Turn]]) -> tuple[ReadTurn, ...]:
    """Turns with their messages read.

    Args:
        turns: Places and turns, in the order in which they were sent.
    """
    lengths: dict[str, int] = {}
    read: list[ReadTurn] = []
    for at, turn in turns:
        request = turn.request
        rows = tuple(map(_row, request.messages))
        reply = _reply(turn.reply.message)
        base = lengths.get(request.base)
        goes_on = base is not None and request.prefix_len == base
        if base is not None and request.prefix_len == base - 1 and rows[:1]:
            # The agent sends the reply in other words than it got it, such as without its thoughts.
            goes_on = rows[0]["role"] == "assistant"
            rows = rows[1:] if goes_on else rows
        length = request.prefix_len + len(request.messages) + (reply is not None)
        lengths[turn.turn_id] = length
        read.append(
            ReadTurn(
                at=at, turn=turn, new=rows, reply=reply, goes_on=request.base if goes_on else ""
            )
        )
    return tuple(read)


def longest_line(turns: Sequence[ReadTurn]) -> tuple[ReadTurn, ...]:
    """The longest conversation in an episode: each turn goes on where the one before ended."""
    by_id = {one.turn.turn_id: one for one in turns}
    depths: dict[str, int] = {}
    for one in turns:
        depths.setdefault(one.turn.turn_id, depths.get(one.goes_on, 0) + 1)
    if not depths:
        return ()
    at = max(depths, key=depths.__getitem__)
    line: list[ReadTurn] = []
    while at in by_id and len(line) < depths[max(depths, key=depths.__getitem__)]:
        line.append(by_id[at])
        at = by_id[at].goes_on
    return tuple(reversed(line))


def loops(line: Sequence[ReadTurn]) -> tuple[Loop, ...]:
    """Stretches of a conversation that repeat `ROUNDS` times or more, each once."""
    words = [_words(one) for one in line]
    found: list[Loop] = []
    start = 0
    while start < len(line):
        stretch = _longest(words, start)
        if stretch is None:
            start += 1
            continue
        period, length = stretch
        part = line[start : start + length]
        texts = [one.reply["content"] for one in part[:period] if one.reply is not None]
        found.append(
            Loop(
                period=period,
                rounds=length // period,
                quoted=clipped(" / ".join(filter(None, texts))),
                digests=tuple(
                    call_digest(call)
                    for one in part[:period]
                    for call in (one.reply or {}).get("tool_calls") or ()
                ),
                places=(part[0].at, part[-1].at),
            )
        )
        start += length
    return tuple(found)


def call_digest(call: Mapping[str, Any]) -> str:
    """Of a call's tool and arguments; the order of keys in JSON does not count."""
    function = call["function"]
    arguments: Any = function["arguments"]
    with suppress(msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        arguments = msgspec.json.encode(msgspec.json.decode(arguments), order="sorted").decode()
    return _digest([function["name"], arguments])


def clipped(text: str) -> str:
    """The beginning of a text, in one line."""
    plain = " ".join(text[: CLIPPED * 4].split())
    return plain if len(plain) <= CLIPPED else f"{plain[: CLIPPED - 1]}…"


def _row(raw: Raw) -> Row:
    return message_of(_json(raw))


def _reply(raw: Raw) -> Row | None:
    value = _json(raw)
    return message_of(value) if isinstance(value, dict) else None


def _json(raw: Raw) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None


def _words(one: ReadTurn) -> str:
    """Digest of what a turn was given and what it answered, without ids; a failed one differs."""
    if one.reply is None or one.turn.error:
        return one.at
    given = [[row["role"], row["content"]] for row in one.new]
    calls = [call_digest(call) for call in one.reply["tool_calls"] or ()]
    return _digest([given, one.reply["content"], calls])


def _longest(words: Sequence[str], start: int) -> tuple[int, int] | None:
    """The period and the length of the longest repetition that begins at a turn."""
    best: tuple[int, int] | None = None
    for period in PERIODS:
        end = start + period
        while end < len(words) and words[end] == words[end - period]:
            end += 1
        length = (end - start) // period * period
        if length >= ROUNDS * period and (best is None or length > best[1]):
            best = period, length
    return best


def _digest(value: Any) -> str:
    text = msgspec.json.encode(value)
    return hashlib.sha256(text).hexdigest()[:16]
