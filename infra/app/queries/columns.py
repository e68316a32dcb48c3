"""The columns of an event type: its numbers, texts and truth values, each under a name. Pure.

Fields of a part of the event are columns, too, such as `timing_total_ms`. Lists, maps, arrays of
tokens and JSON that passes through are no columns: the column `record` has the whole event.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec import Struct, inspect

from odradek.schemas.events import Event

TYPES: Final[dict[type, str]] = {
    inspect.StrType: "varchar",
    inspect.EnumType: "varchar",
    inspect.LiteralType: "varchar",
    inspect.IntType: "bigint",
    inspect.FloatType: "double",
    inspect.BoolType: "boolean",
}
"""What msgspec knows of a field, and DuckDB's type for it."""


class Column(Struct, frozen=True):
    """A column, and where in the event its value is."""

    name: str
    type: str
    """DuckDB's."""
    path: tuple[str, ...] = ()

    def value(self, event: Event) -> Any:
        """The value of an event's column, None where the part that it is of is not there."""
        found: Any = event
        for name in self.path:
            found = getattr(found, name, None)
        return found


PLACE: Final = (
    Column("place", "varchar"),
    Column("partition", "integer"),
    Column("offset", "bigint"),
    Column("timestamp", "timestamp"),
)
"""Where a record stands, as `odradek show` takes it and in parts, and when it was written (UTC)."""
RECORD: Final = Column("record", "json")
"""The event as it stands on the topic: fields that have their default may be absent."""


def columns_of(kind: type[Struct]) -> tuple[Column, ...]:
    """The columns of an event type, in the order of its fields."""
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    return tuple(_columns(info, ()))


def _columns(info: inspect.StructType, path: tuple[str, ...]) -> Iterator[Column]:
    for field in info.fields:
        here = (*path, field.name)
        kind = _plain(field.type)
        if isinstance(kind, inspect.StructType) and not kind.array_like:
            yield from _columns(kind, here)
        elif (name := TYPES.get(type(kind))) is not None:
            yield Column("_".join(here), name, here)


def _plain(kind: inspect.Type) -> inspect.Type:
    """A type without its limits, and without None."""
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    if isinstance(kind, inspect.UnionType):
        others = [one for one in kind.types if not isinstance(one, inspect.NoneType)]
        return _plain(others[0]) if len(others) == 1 else kind
    return kind


def text(value: Any) -> Any:
    """A value as a column holds it: names of outcomes are text."""
    return str(value) if isinstance(value, str) else value


def json_text(value: bytes | None) -> str | None:
    """A record's value as text, None where it is no JSON."""
    try:
        msgspec.json.decode(value or b"")
        return (value or b"").decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
