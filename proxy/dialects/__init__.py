"""What agents speak: each dialect reads a request, and says the engine's reply in its own words."""

from typing import Final

from aiohttp import web

from odradek.proxy.dialects.chat import CHAT
from odradek.proxy.dialects.completions import COMPLETIONS
from odradek.proxy.dialects.dialect import Dialect
from odradek.proxy.dialects.gemini import GEMINI, GEMINI_STREAM, Gemini
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
    ":generateContent": GEMINI,
    ":streamGenerateContent": GEMINI_STREAM,
}
MODEL: Final = "/models/{model:.+}"
"""What stands before a path that begins with a colon: Google's name the model."""
VERSIONS: Final = ("/v1beta", "/v1alpha")
"""Of Google's: its clients add one of them to the address that they are given."""
GOOGLES: Final = tuple(root + version for root in ("", *ROOTS) for version in VERSIONS)
"""Where Google's paths may begin, too."""


_ENDS: Final = (*(end for end in DIALECTS if end.startswith(":")), ":countTokens")


def is_googles(request: web.Request) -> bool:
    """Whether an address is one of Google's."""
    path = request.path
    return any(f"{version}/" in path for version in VERSIONS) or path.endswith(_ENDS)


def dialect_of(request: web.Request) -> Dialect:
    """The dialect of a caller at an address that several share: clients say whose they are."""
    if "anthropic-version" in request.headers:
        return MESSAGES
    return GEMINI if "x-goog-api-key" in request.headers or is_googles(request) else CHAT


def addressed(dialect: Dialect, request: web.Request) -> Dialect:
    """A dialect at the address of a request, which may say more than the dialect."""
    if not isinstance(dialect, Gemini):
        return dialect
    query = request.query
    return dialect.at(request.match_info["model"], query.get("alt", query.get("$alt")))
