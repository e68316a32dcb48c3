"""A request's sampling fields: those written into it, taken out of it, and recorded.

An engine has defaults of its own, and so has the model's generation config. So a field that a
client leaves out is written with its neutral value. The agent does not see these fields.
"""

import re
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from odradek.proxy.wire.body import NULL, UNREADABLE
from odradek.schemas.http.engine import LOGPROBS, TOKEN_IDS, WEIGHT_VERSIONS
from odradek.schemas.neutral_fields import NOTED, PLAIN
from odradek.schemas.sampling import NEUTRAL, STRICT, UNSENT, alters, off, recorded

FORCED: Final = (LOGPROBS, TOKEN_IDS, WEIGHT_VERSIONS)
"""Fields that each call asks for, even if its client did not ask for them."""
_STRICT: Final = re.compile(rb'"strict"\s*:\s*(?!null|false)')
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder().decode
_tools: Final = msgspec.json.Decoder(list[dict[str, Any]])


class Training(Struct, frozen=True, kw_only=True):
    """The distribution that is trained on, as an engine is asked for it."""

    values: dict[str, float]
    """Fields that are written where a client leaves them out: temperature and neutral values."""
    raws: dict[str, Raw]
    """The same as JSON."""
    force: bool = False
    """Whether it replaces what clients ask for."""
    lacks: frozenset[str] = frozenset()
    """Fields that the engine refuses, so they are no longer written; may include some of `FORCED`.
    """

    @classmethod
    def of(cls, values: dict[str, float], *, force: bool = False) -> "Training":
        """A training with these values, whose JSON is made once."""
        raws = {name: Raw(_encode(value)) for name, value in values.items()}
        return cls(values=values, raws=raws, force=force)

    @classmethod
    def at(cls, temperature: float, *, force: bool = False) -> "Training":
        """All tokens, at a temperature."""
        return cls.of({"temperature": temperature, **NEUTRAL}, force=force)

    def lessened(self, before: dict[str, Any], left: dict[str, Any]) -> "Training":
        """Keep only the fields that the engine accepts.

        What others have learned of it meanwhile stays.
        """
        lost = {name for name in before if name not in left}
        values = {
            name: left.get(name, value) if before.get(name) == value else value
            for name, value in self.values.items()
            if name not in lost
        }
        return msgspec.structs.replace(self.of(values, force=self.force), lacks=self.lacks | lost)


ALL_TOKENS: Final = Training.at(1.0)


def force(fields: dict[str, Raw]) -> None:
    """Take out of a request each field that changes its distribution from that of training."""
    values = {name: _decode(raw) for name, raw in fields.items() if name not in PLAIN | NOTED}
    for name in values:
        if name == "temperature" or name in NEUTRAL or alters(name, values):
            del fields[name]
    if _is_strict(fields.get("tools", NULL)):
        fields["tools"] = Raw(_encode([_lenient(tool) for tool in _decode(fields["tools"])]))


def settle(fields: dict[str, Raw], training: Training) -> dict[str, Any]:
    """Write into a request what its client left out; returns what its turn records."""
    record: dict[str, Any] = {}
    for name, raw in fields.items():
        if name not in PLAIN and raw != NULL:
            value = recorded(name, _decode(raw))
            if value is not None:
                record[name] = value
    for name, raw in training.raws.items():
        if name not in fields or fields[name] == NULL:
            fields[name] = raw
            record[name] = training.values[name]
    if training.lacks:
        _leave_out(fields, record, training)
    if _is_strict(fields.get("tools", NULL)):
        record[STRICT] = True
    return record


def _leave_out(fields: dict[str, Raw], record: dict[str, Any], training: Training) -> None:
    """Leave out nulls of fields that the engine refuses: it would refuse the null, too."""
    for name in training.lacks:
        if fields.get(name) == NULL:
            del fields[name]
    if "temperature" in training.lacks and "temperature" not in record:
        record[UNSENT] = True


def _is_strict(tools: Raw) -> bool:
    """Whether the arguments of some tool are held to its schema."""
    text = bytes(tools)
    # Looked for before anything is parsed: nearly no call has one.
    if b'"strict"' not in text or not _STRICT.search(text):
        return False
    try:
        return any(not off(_function(tool).get("strict")) for tool in _tools.decode(text))
    except UNREADABLE:
        return False


def _function(tool: Any) -> dict[str, Any]:
    function = tool.get("function") if isinstance(tool, dict) else None
    return function if isinstance(function, dict) else {}


def _lenient(tool: Any) -> Any:
    """A tool whose arguments are the model's own."""
    if not _function(tool).get("strict"):
        return tool
    left = {name: value for name, value in tool["function"].items() if name != "strict"}
    return {**tool, "function": left}
