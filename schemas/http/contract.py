"""The engine's surface in print: as Markdown, and as an OpenAPI 3.1 document."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from functools import reduce
from operator import or_
from types import UnionType
from typing import Any, Final, get_args

import msgspec
from msgspec import Raw, Struct

from odradek.schemas.http import reply
from odradek.schemas.http.engine import CAPABILITIES, ROUTES, SurfaceRoute

PARTS: Final = (
    reply.Choice, reply.EngineUsage, reply.WeightVersions, reply.Logprobs, reply.Logprob,
    reply.TextChoice, reply.TextLogprobs,
)  # fmt: skip
"""Types within those of the routes, as far as a reader must know them."""


def types() -> list[type[Struct]]:
    """Every type of the surface: requests, queries and replies in the order of the routes."""
    kinds = [
        kind
        for route in ROUTES
        for kind in (route.query, route.request, route.reply)
        if kind is not None
    ]
    return list(dict.fromkeys([*kinds, *PARTS]))


def fields_of(kind: type[Struct]) -> Iterator[tuple[str, str, str]]:
    """A type's fields, each with its type as written, and what its docstring says."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    for node, after in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, ast.unparse(node.annotation), _text(after)


def _text(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return " ".join(str(node.value.value).split())
    return ""


def about(kind: type[Struct]) -> str:
    """What a type is: its docstring in one paragraph."""
    return " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())


def markdown() -> str:
    """The surface for people."""
    lines = [
        "### Routes", "",
        "| route | who asks | capability | what it does |", "|---|---|---|---|",
        *(
            f"| `{route.method} {route.path}` | {route.by} | {route.capability} | {route.about} |"
            for route in ROUTES
        ),
        "", "### Capabilities", "",
        "| capability | the engine | without it |", "|---|---|---|",
        *(f"| {name} | {terms.about} | {terms.cost} |" for name, terms in CAPABILITIES.items()),
        "", "### Types",
    ]  # fmt: skip
    for kind in types():
        uses = ", ".join(f"`{route.path}`" for route in ROUTES if kind in _of(route))
        lines += ["", f"**{kind.__name__}**{f' ({uses})' if uses else ''}: {about(kind)}", ""]
        for name, annotation, text in fields_of(kind):
            lines.append(f"* `{name}: {annotation}`{f'. {text}' if text else ''}")
    return "\n".join(lines) + "\n"


def _of(route: SurfaceRoute) -> tuple[type[Struct] | None, ...]:
    return route.query, route.request, route.reply


def document(*, version: str) -> dict[str, Any]:
    """The surface as an OpenAPI 3.1 document.

    Args:
        version: Of the software.
    """
    kinds = types()
    printable: dict[type[Struct], type[Struct]] = {}
    refs, schemas = msgspec.json.schema_components(
        [_printable(kind, printable) for kind in kinds], ref_template="#/components/schemas/{name}"
    )
    ref = dict(zip(kinds, refs, strict=True))
    for kind in kinds:
        described = schemas[kind.__name__].get("properties", {})
        for name, _, text in fields_of(kind):
            if text and name in described:
                described[name]["description"] = text
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Odradek: the engine's surface",
            "version": version,
            "license": {"name": "Apache-2.0"},
        },
        "paths": {
            route.path: {route.method.lower(): _operation(route, ref, schemas)} for route in ROUTES
        },
        "components": {"schemas": dict(sorted(schemas.items()))},
        "x-capabilities": {
            str(name): {"about": terms.about, "cost": terms.cost}
            for name, terms in CAPABILITIES.items()
        },
    }


def _printable(kind: type[Struct], printable: dict[type[Struct], type[Struct]]) -> type[Struct]:
    """The same type without `Raw`, whose values msgspec cannot print as defaults."""
    if kind not in printable:
        fields = [
            (field.name, _unraw(field.type, printable), *_default(field))
            for field in msgspec.structs.fields(kind)
        ]
        printable[kind] = msgspec.defstruct(
            kind.__name__, fields, namespace={"__doc__": kind.__doc__}, kw_only=True
        )
    return printable[kind]


def _default(field: msgspec.structs.FieldInfo) -> tuple[Any, ...]:
    if field.default_factory is not msgspec.NODEFAULT:
        return (msgspec.field(default_factory=field.default_factory),)
    if field.default is msgspec.NODEFAULT:
        return ()
    return (None if isinstance(field.default, Raw) else field.default,)


def _unraw(annotation: Any, printable: dict[type[Struct], type[Struct]]) -> Any:
    if annotation is Raw:
        return Any
    if isinstance(annotation, type) and issubclass(annotation, Struct):
        return _printable(annotation, printable)
    if parts := tuple(_unraw(part, printable) for part in get_args(annotation)):
        return (
            reduce(or_, parts)
            if isinstance(annotation, UnionType)
            else annotation.__origin__[parts]
        )
    return annotation


def _operation(
    route: SurfaceRoute, ref: dict[type[Struct], Any], schemas: dict[str, Any]
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": route.about,
        "x-asked-by": route.by,
        "x-capability": str(route.capability),
        "responses": {"200": {"description": "The answer."}},
    }
    if route.query is not None:
        properties = schemas[route.query.__name__]["properties"]
        operation["parameters"] = [
            {"in": "query", "name": name, "schema": properties[name]} for name in properties
        ]
    if route.request is not None:
        content = {"application/json": {"schema": ref[route.request]}}
        operation["requestBody"] = {"required": True, "content": content}
    if route.reply is not None:
        content = {"application/json": {"schema": ref[route.reply]}}
        operation["responses"]["200"]["content"] = content
    return operation
