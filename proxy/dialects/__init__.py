"""The APIs that agents use: each dialect reads a request and writes the engine's reply.

`SPOKEN` is the table of dialects. A dialect's `surface` has its addresses, its callers and the
bodies that it takes. `dialect` declares what all dialects do. `chat` and `completions` are the
engine's own. `messages`, `responses` and `gemini` build on `chat`, with `translation` and `tools`.
"""

from typing import Final

from aiohttp import web

from odradek.infra.runtime.imports import import_entry
from odradek.proxy.dialects.dialect import Dialect
from odradek.proxy.dialects.surface import Surface

__all__ = ["DIALECTS", "SPOKEN", "SURFACES", "Dialect", "Surface", "keys_in_query", "surface_of"]

SPOKEN: Final = (
    "odradek.proxy.dialects.chat:CHAT_SURFACE",
    "odradek.proxy.dialects.completions:COMPLETIONS_SURFACE",
    "odradek.proxy.dialects.messages:MESSAGES_SURFACE",
    "odradek.proxy.dialects.responses:RESPONSES_SURFACE",
    "odradek.proxy.dialects.gemini:GEMINI_SURFACE",
)
"""`module:name` of each dialect's surface; the first serves callers that no surface matches."""
SURFACES: Final[tuple[Surface, ...]] = tuple(import_entry(place) for place in SPOKEN)
DIALECTS: Final[dict[str, Dialect]] = {
    path: dialect for surface in SURFACES for path, dialect in surface.calls.items()
}


def surface_of(request: web.Request) -> Surface:
    """The surface of a request's caller; at addresses that several share, the headers decide."""
    for surface in SURFACES:
        if surface.matches(request):
            return surface
    return SURFACES[0]


def keys_in_query(request: web.Request) -> bool:
    """Whether the token of a request may stand in its query."""
    return any(surface.keys_in_query(request) for surface in SURFACES)
