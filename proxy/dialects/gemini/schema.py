"""Google's schemas (OpenAPI 3.0, types in capitals) as JSON Schema."""

from typing import Any, Final

from odradek.proxy.dialects.gemini.fields import camel

DROPPED: Final = frozenset({"propertyOrdering", "example", "nullable"})
"""Words that JSON Schema does not have."""
NAMED: Final = {"ref": "$ref", "defs": "$defs"}
SCHEMAS: Final = frozenset({"items", "additionalProperties"})
"""Words that hold a schema, if they hold an object."""
LISTS: Final = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
"""Words that hold a list of them."""
NAMES: Final = frozenset({"properties", "$defs"})
"""Words that hold them by name."""
COUNTS: Final = frozenset({
    "maxItems", "maxLength", "maxProperties", "minItems", "minLength", "minProperties",
})  # fmt: skip
"""Numbers of 64 bits, which Google's JSON writes as text."""
UNSPECIFIED: Final = "type_unspecified"


def json_schema(schema: Any) -> Any:
    """The same in JSON Schema; a JSON Schema stays as it is."""
    if not isinstance(schema, dict):
        return schema
    converted: dict[str, Any] = {}
    for word, value in schema.items():
        name = camel(word)
        name = NAMED.get(name, name)
        if name not in DROPPED:
            converted[name] = _value(name, value)
    if converted.get("type") == UNSPECIFIED:
        del converted["type"]
    return _nullable(converted) if schema.get("nullable") is True else converted


def _value(name: str, value: Any) -> Any:
    if name == "type":
        return [*map(_lower, value)] if isinstance(value, list) else _lower(value)
    if name in SCHEMAS:
        return json_schema(value)
    if name in LISTS and isinstance(value, list):
        return [json_schema(inner) for inner in value]
    if name in NAMES and isinstance(value, dict):
        return {key: json_schema(inner) for key, inner in value.items()}
    if name in COUNTS and isinstance(value, str) and value.isdecimal() and value.isascii():
        return int(value[:18])
    return value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    kind = schema.get("type")
    if isinstance(kind, str):
        schema["type"] = [kind, "null"]
        if isinstance(schema.get("enum"), list) and None not in schema["enum"]:
            schema["enum"] = [*schema["enum"], None]
    elif isinstance(schema.get("anyOf"), list):
        schema["anyOf"] = [*schema["anyOf"], {"type": "null"}]
    return schema
