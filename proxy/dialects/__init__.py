"""The APIs that agents use: each dialect reads a request and writes the engine's reply.

`SPOKEN` is the table of dialects; each has its addresses, its callers and what it takes on its
`surface`. `dialect` is what all of them do. `chat` and `completions` are the engine's own;
`messages`, `responses` and `gemini` are made of `chat` by `translation` and `tools`.
"""

from typing import Final

from aiohttp import web

from odradek.infra.runtime.imports import ours
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
"""`module:name` of each dialect's surface; the first is that of callers who do not say more."""
SURFACES: Final[tuple[Surface, ...]] = tuple(ours(place) for place in SPOKEN)
DIALECTS: Final[dict[str, Dialect]] = {
    path: dialect for surface in SURFACES for path, dialect in surface.calls.items()
}


def surface_of(request: web.Request) -> Surface:
    """Whose caller asks at an address that several share: clients say whose they are."""
    for surface in SURFACES:
        if surface.matches(request):
            return surface
    return SURFACES[0]


def keys_in_query(request: web.Request) -> bool:
    """Whether the token of a request may stand in its query."""
    return any(surface.keys_in_query(request) for surface in SURFACES)
