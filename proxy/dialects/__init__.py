"""What agents speak: each dialect reads a request, and says the engine's reply in its own words."""

from typing import Final

from aiohttp import web

from odradek.proxy.dialects.chat import CHAT
from odradek.proxy.dialects.completions import COMPLETIONS
from odradek.proxy.dialects.dialect import Dialect
from odradek.proxy.dialects.messages import MESSAGES
from odradek.proxy.dialects.responses import COMPACT, RESPONSES

ROOTS: Final = ("/e/{episode}/v1", "/e/{episode}", "/v1", "/t/{token}/v1", "/t/{token}")
"""Where each dialect's path begins: clients differ in whether they add /v1 themselves."""
DIALECTS: Final[dict[str, Dialect]] = {
    "/chat/completions": CHAT,
    "/completions": COMPLETIONS,
    "/messages": MESSAGES,
    "/responses/compact": COMPACT,
    "/responses": RESPONSES,
}


def dialect_of(request: web.Request) -> Dialect:
    """The dialect of a caller at an address that several share: Anthropic's clients say so."""
    return MESSAGES if "anthropic-version" in request.headers else CHAT
