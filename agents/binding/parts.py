"""Parts of messages, as an agent's own code has them: text, data and files as Python values."""

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

TEXT: Final = "text/plain"
JSON: Final = "application/json"
ABSENT: Final = Raw(b"")
OCTETS: Final = "application/octet-stream"


class ProtoPart(Struct, frozen=True, rename="camel"):
    """A part of a message (A2A section 4.1.6): one of text, data, raw (base64) and url."""

    text: str | None = None
    data: Raw = ABSENT
    raw: str | None = None
    url: str | None = None
    filename: str = ""
    media_type: str = ""

    @property
    def is_data(self) -> bool:
        """Whether it holds structured data."""
        return self.text is None and bool(bytes(self.data))

    @property
    def type(self) -> str:
        """Its media type; text and data have one of their own where they name none."""
        own = TEXT if self.text is not None else JSON if self.is_data else ""
        return self.media_type.partition(";")[0].strip().lower() or own or OCTETS

    def value(self) -> Any:
        """What an agent gets of it: text as a string, data as values, a file as its fields."""
        if self.text is not None:
            return self.text
        if self.is_data:
            return msgspec.json.decode(self.data)
        fields = {"raw": self.raw, "url": self.url, "filename": self.filename}
        named = {name: text for name, text in fields.items() if text}
        return {**named, "mediaType": self.type} if named else None


def value_of(parts: list[ProtoPart]) -> Any:
    """What an agent gets of a message: a single part's value, several as a list, None for none."""
    values = [part.value() for part in parts]
    return values[0] if len(values) == 1 else values or None


def part_of(value: Any) -> dict[str, Any]:
    """A value as a part, in ProtoJSON: a string as text, anything else as data."""
    return {"text": value} if isinstance(value, str) else {"data": value}
