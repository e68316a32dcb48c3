"""What agents speak: each dialect reads a request, and says the engine's reply in its own words.

`SURFACES` is the table of dialects; each has its addresses, its callers and what it takes on its
`surface`. `dialect` is what all of them do. `chat` and `completions` are the engine's own;
`messages`, `responses` and `gemini` are made of `chat` by `translation` and `tools`.
"""

from typing import Final

from aiohttp import web

from odradek.proxy.dialects.chat import CHAT_SURFACE
from odradek.proxy.dialects.completions import COMPLETIONS_SURFACE
from odradek.proxy.dialects.dialect import Dialect
from odradek.proxy.dialects.gemini import GEMINI_SURFACE
from odradek.proxy.dialects.messages import MESSAGES_SURFACE
from odradek.proxy.dialects.responses import RESPONSES_SURFACE
from odradek.proxy.dialects.surface import Surface

SURFACES: Final[tuple[Surface, ...]] = (
    CHAT_SURFACE,
    COMPLETIONS_SURFACE,
    MESSAGES_SURFACE,
    RESPONSES_SURFACE,
    GEMINI_SURFACE,
)
"""Each dialect; the first is that of callers of whom nobody knows more."""
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
