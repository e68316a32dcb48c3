"""Google's JSON: names in either case, a list of one without its brackets, numbers as text."""

import re
from typing import Any, Final

import msgspec

from odradek.proxy.dialects.dialect import unreadable
from odradek.proxy.errors import BadRequest

_UNDERSCORE: Final = re.compile(r"(?<=[a-zA-Z0-9])_([a-z0-9])")


def camel(name: str) -> str:
    """A field's name as Google's documents have it."""
    return _UNDERSCORE.sub(lambda match: match[1].upper(), name)


def level(value: Any, where: str) -> dict[str, Any]:
    """Rename an object's own keys to camelCase; nested values stay. Raises BadRequest."""
    if not isinstance(value, dict):
        raise BadRequest(f"{where}: an object is needed", param=where)
    return {camel(name): inner for name, inner in value.items()}


def convert(value: Any, kind: Any, where: str) -> Any:
    """An object in the shape of `kind`, a struct. Raises BadRequest, which names the field."""
    try:
        return msgspec.convert(level(value, where), kind, strict=False)
    except (msgspec.ValidationError, RecursionError) as error:
        raise unreadable(error, where) from None


def listed(value: Any, where: str) -> list[Any]:
    """A list; one entry may stand for itself. Raises BadRequest."""
    if value is None:
        return []
    if isinstance(value, dict):
        return [value]
    if not isinstance(value, list):
        raise BadRequest(f"{where}: a list is needed", param=where)
    return value
