"""Characters that a stream's chunks have cut in two.

Engines and gateways that count text in UTF-16 may end a chunk with the first half of a surrogate
pair and begin the next one with the second. Neither chunk can be read alone, so the first half is
kept back until the second one comes.
"""

import json
from collections.abc import Iterator
from typing import Any, Final

from odradek.schemas.codec import check_text
from odradek.schemas.errors import InvalidRecord

Place = tuple[Any, ...]
"""Where in a choice a text is."""
FIRST: Final = ("\ud800", "\udbff")
"""First halves are between these."""


class Halves:
    """First halves of characters whose second ones have not come yet."""

    def __init__(self) -> None:
        self.waiting: dict[Place, str] = {}

    def whole(self, data: bytes) -> bytes:
        """A chunk with whole characters only; itself, as a rule.

        All of it is checked, since a dialect may copy fields that we do not read. Raises
        InvalidRecord.
        """
        if not self.waiting:
            try:
                check_text(data)
            except InvalidRecord:
                return self._joined(data)
            return data
        return self._joined(data)

    def _joined(self, data: bytes) -> bytes:
        try:
            value = json.loads(data)
            choices = value.get("choices") if isinstance(value, dict) else None
            for choice in choices if isinstance(choices, list) else ():
                if isinstance(choice, dict):
                    self._join(choice)
            joined = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        except (ValueError, RecursionError):
            check_text(data)  # which names the byte, where it is none of a character's half
            raise InvalidRecord("not_json", "half of a character") from None
        return joined

    def _join(self, choice: dict[str, Any]) -> None:
        at = choice.get("index") or 0
        for place, holder, name in _texts(choice):
            text = self.waiting.pop((at, *place), "") + holder[name]
            if text and FIRST[0] <= text[-1] <= FIRST[1]:
                self.waiting[at, *place], text = text[-1], text[:-1]
            # Two halves become one character; whatever is half of one fails here.
            holder[name] = text.encode("utf-16", "surrogatepass").decode("utf-16")
        if choice.get("finish_reason") and any(key[0] == at for key in self.waiting):
            raise ValueError


def _texts(choice: dict[str, Any]) -> Iterator[tuple[Place, dict[str, Any], str]]:
    """All texts of a choice that go on from chunk to chunk: where each is, and what holds it."""
    for holder in (choice, choice.get("delta"), choice.get("message")):
        if isinstance(holder, dict):
            yield from _of(holder)


def _of(holder: dict[str, Any]) -> Iterator[tuple[Place, dict[str, Any], str]]:
    for name, value in holder.items():
        if isinstance(value, str) and value and name not in {"role", "finish_reason"}:
            yield (name,), holder, name
    calls = holder.get("tool_calls")
    for order, call in enumerate(calls if isinstance(calls, list) else ()):
        for kind, held in call.items() if isinstance(call, dict) else ():
            for name, value in held.items() if isinstance(held, dict) else ():
                if isinstance(value, str) and value:
                    yield (call.get("index", order), kind, name), held, name
