"""How each turn of an episode was sampled, and whether its reply was cut by length."""

from collections.abc import Mapping
from typing import Any, Final

from odradek.schemas.arrays import count
from odradek.schemas.events import Span, Turn
from odradek.schemas.sampling import complete, number, sampling_of

LIMITS: Final = ("max_completion_tokens", "max_tokens", "n_predict")
"""What a request calls the limit of a reply, in the order in which engines look at them."""
CUT: Final = frozenset({"length", "max_tokens", "max_output_tokens", "model_length"})
"""Finish reasons of a reply that ended at it."""
CALLS: Final = frozenset({"tool_calls", "function_call"})
"""Finish reasons that stand over the true one: parsers call a reply that was cut off behind a tool
call a tool call."""


class Samplings:
    """Reads turns in the order in which they were sent: one that says nothing was as its base."""

    def __init__(self) -> None:
        self._fields: dict[str, Mapping[str, Any]] = {}

    def learn(self, turn: Turn) -> None:
        """Take a turn, be it trained on or not: later ones may refer to it."""
        before = self._fields.get(turn.request.base, {})
        fields = turn.request.sampling or (before if complete(before) else {})
        self._fields[turn.turn_id] = fields

    def span(self, turn: Turn, start: int, end: int) -> Span:
        """The reply of a turn that was learned, at its place in a sequence."""
        fields = self._fields[turn.turn_id]
        drawn = sampling_of(fields)
        return Span(start, end, drawn.temperature, drawn.altered_by, _truncated(turn, fields))


def _truncated(turn: Turn, fields: Mapping[str, Any]) -> bool:
    reason = (turn.reply.finish_reason or "").lower()
    if reason in CUT:
        return True
    limit = next((n for name in LIMITS if (n := number(fields.get(name))) is not None), None)
    return reason in CALLS and limit is not None and count(turn.completion.ids) >= limit
