"""An OpenAPI 3.1 document of the proxy: paths from the route table, bodies from the types."""

import re
from typing import Any, Final

import msgspec
from aiohttp import web
from msgspec import Struct

from odradek.proxy.dialects import SURFACES
from odradek.schemas.http.seal import SealRequest

HIDDEN: Final = frozenset({"/{rest}"})
METHODS: Final = frozenset({"GET", "POST"})


BODIES: Final[dict[str, type[Struct]]] = {
    **{path: surface.body for surface in SURFACES for path in surface.calls},
    **{path: count.body for surface in SURFACES for path, count in surface.counts.items()},
    "/seal": SealRequest,
}
"""The body that a path takes, by the end of the path; the longest matching end counts."""


def document(app: web.Application, *, version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of an application's routes.

    Raises ValueError for a route that takes a body which is not in BODIES.
    """
    refs, schemas = msgspec.json.schema_components(
        BODIES.values(), ref_template="#/components/schemas/{name}"
    )
    bodies = dict(zip(BODIES, refs, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in app.router.routes():
        path = route.resource.canonical if route.resource is not None else ""
        if path in HIDDEN or route.method not in METHODS:
            continue
        paths.setdefault(path, {})[route.method.lower()] = _operation(route.method, path, bodies)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Odradek's proxy", "version": version},
        "security": [{"bearer": []}, {"key": []}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _operation(method: str, path: str, bodies: dict[str, Any]) -> dict[str, Any]:
    names = re.findall(r"{(\w+)}", path)
    operation: dict[str, Any] = {
        "operationId": f"{method} {path}",
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in names
        ],
        "responses": {
            "2XX": {"description": "The answer, in the dialect's own shape."},
            "4XX": {"description": "Refused, in the dialect's own shape."},
            "5XX": {"description": "The engine's or the log's doing; Retry-After says when."},
        },
    }
    if method == "POST":
        end = max((end for end in bodies if path.endswith(end)), key=len)
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": bodies[end]}},
        }
    return operation
