"""Turns of messages: each reply is a model call, and what comes before it is its request. Pure."""

import math
from collections.abc import Sequence
from typing import Any, Final

from odradek.infra.app.imports.recording import RecordedTokens, RecordedTurn
from odradek.infra.errors import BadRecording
from odradek.schemas.arrays import pack_floats, pack_ids
from odradek.schemas.errors import InvalidRecord

REPLY: Final = "assistant"
LARGEST: Final = 3.4e38
"""Beyond this a log probability is no float32."""
Message = dict[str, Any]


def messages_of(value: Any, what: str = "messages", *, role: str = "user") -> list[Message]:
    """The messages of a field, in the shape of OpenAI's chat completions API.

    Args:
        value: A list of messages, or a text.
        what: The field's name, for errors.
        role: Whose message a text is.

    Raises BadRecording.
    """
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if not isinstance(value, list):
        raise BadRecording(f"{what} is no list of messages")
    for at, message in enumerate(value):
        where = f"{what}[{at}]"
        if not isinstance(message, dict):
            raise BadRecording(f"{where} is no object")
        if not isinstance(message.get("role"), str) or not message["role"]:
            raise BadRecording(f"{where} has no role")
        if not isinstance(message.get("content"), str | list | None):
            raise BadRecording(f"{where}: its content is neither text nor a list of parts")
        if not isinstance(message.get("tool_calls"), list | None):
            raise BadRecording(f"{where}: its tool_calls are no list")
    return value


def turns_of(messages: Sequence[Message], tools: Any = None) -> tuple[RecordedTurn, ...]:
    """The turns of one history; what follows the last reply is a turn without one.

    Raises BadRecording where nobody replies.
    """
    turns: list[RecordedTurn] = []
    start = 0
    for at, message in enumerate(messages):
        if message["role"] == REPLY:
            turns.append(_turn(len(turns), start, messages[start:at], message, tools))
            start = at + 1
    if not turns:
        raise BadRecording(f"no message has the role {REPLY}: nothing was replied")
    if start < len(messages):
        turns.append(_turn(len(turns), start, messages[start:], None, tools))
    return tuple(turns)


def _turn(
    number: int, start: int, messages: Sequence[Message], reply: Message | None, tools: Any
) -> RecordedTurn:
    return RecordedTurn(
        base=number - 1,
        prefix_len=start,
        messages=tuple(messages),
        reply=reply,
        tools=None if number else tools,
    )


class Histories:
    """Turns whose requests hold all messages so far: each becomes a delta on an earlier one."""

    def __init__(self) -> None:
        self.turns: list[RecordedTurn] = []
        self._histories: list[list[Message]] = []

    def add(
        self,
        messages: list[Message],
        reply: Message,
        *,
        tokens: RecordedTokens | None = None,
        finish_reason: str | None = None,
        tools: Any = None,
    ) -> None:
        """Take the next call: its whole request, and its reply."""
        base, known = -1, 0
        for number, history in enumerate(self._histories):
            if known <= len(history) <= len(messages) and messages[: len(history)] == history:
                base, known = number, len(history)
        self.turns.append(
            RecordedTurn(
                base=base,
                prefix_len=known,
                messages=tuple(messages[known:]),
                reply=reply,
                tokens=tokens,
                finish_reason=finish_reason,
                tools=None if self.turns else tools,
            )
        )
        self._histories.append([*messages, reply])


def tokens_of(prompt: Any, sampled: Any, logprobs: Any) -> RecordedTokens | None:
    """The tokens of a call; None unless all three are there, and as many numbers as sampled ids.

    What is there and cannot be used counts as not recorded: nobody trains on it.
    """
    if not all(isinstance(each, list) and each for each in (prompt, sampled, logprobs)):
        return None
    whole = all(type(each) is int for each in (*prompt, *sampled))
    numbers = all((n := number_of(each)) is not None and abs(n) <= LARGEST for each in logprobs)
    if len(sampled) != len(logprobs) or not whole or not numbers:
        return None
    try:
        return RecordedTokens(pack_ids(prompt), pack_ids(sampled), pack_floats(logprobs))
    except (InvalidRecord, OverflowError):
        return None


def number_of(value: Any) -> float | None:
    """A finite number as a float, None where a value is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def reward_of(value: Any) -> float | None:
    """A reward, None where there is none. Raises BadRecording where it is no finite number."""
    if value is None:
        return None
    number = number_of(value)
    if number is None:
        raise BadRecording("its reward is no finite number")
    return number


def text_of(value: Any) -> str:
    """A text or a number as a name, "" for anything else."""
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
