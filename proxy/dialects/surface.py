"""A dialect at the proxy's door: its addresses, its callers, and what it takes.

The application, the OpenAPI document and the lists of models know a dialect by its `Surface` alone.
A dialect of your own is a file with one, and a line in `dialects.SPOKEN`: docs/extend.md.
"""

from collections.abc import Callable, Mapping
from typing import Final

from aiohttp import web
from msgspec import Struct

from odradek.proxy.dialects.dialect import Dialect
from odradek.proxy.dialects.models import ModelShape

ROOTS: Final = ("/e/{episode}/v1", "/e/{episode}", "/v1", "/t/{token}/v1", "/t/{token}")
"""Where each dialect's path begins: clients differ in whether they add /v1 themselves."""
MODEL: Final = "/models/{model:.+}"
"""What stands before a path that begins with a colon: Google's name the model."""


class CountRoute(Struct, frozen=True):
    """How a dialect is asked how many tokens a prompt has."""

    field: str
    """Of the answer, that holds the count."""
    body: type[Struct]
    """What is sent."""


def _nobody(_: web.Request) -> bool:
    return False


def _as_it_is(dialect: Dialect, _: web.Request) -> Dialect:
    return dialect


class Surface(Struct, frozen=True, kw_only=True):
    """What a dialect shows of itself; paths are behind a root, or behind MODEL with a colon."""

    calls: Mapping[str, Dialect]
    """POST of a model call, by its path. The first dialect is that of errors at other routes."""
    body: type[Struct]
    """What a call takes, for the OpenAPI document; other fields go to the engine as they are."""
    counts: Mapping[str, CountRoute] = {}
    """POST of a count of tokens, by its path."""
    sockets: tuple[str, ...] = ()
    """Paths that clients GET for a WebSocket, to be told that there is none."""
    roots: tuple[str, ...] = ()
    """Roots of its own, beside ROOTS, below which it also lists models."""
    matches: Callable[[web.Request], bool] = _nobody
    """Whether a caller at an address that several share is one of its clients."""
    at: Callable[[Dialect, web.Request], Dialect] = _as_it_is
    """The dialect at the address of a request, which may say more than the dialect."""
    keys_in_query: Callable[[web.Request], bool] = _nobody
    """Whether its token may stand in the query of a request."""
    models: ModelShape | None = None
    """How it lists models; none where the engine's own list will do."""

    @property
    def dialect(self) -> Dialect:
        """Whose words errors have where no call is meant."""
        return next(iter(self.calls.values()))
