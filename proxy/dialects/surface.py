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
"""The part before a path that begins with a colon: Google's paths name the model."""


class CountRoute(Struct, frozen=True):
    """How a dialect is asked how many tokens a prompt has."""

    field: str
    """The field of the answer that holds the count."""
    body: type[Struct]
    """The request's body."""


def _nobody(_: web.Request) -> bool:
    return False


def _as_it_is(dialect: Dialect, _: web.Request) -> Dialect:
    return dialect


class Surface(Struct, frozen=True, kw_only=True):
    """A dialect's routes and callers. Paths follow a root; those with a colon follow MODEL."""

    calls: Mapping[str, Dialect]
    """POST of a model call, by its path. Errors at other routes use the first dialect."""
    body: type[Struct]
    """A call's body in the OpenAPI document; unlisted fields go to the engine as they are."""
    counts: Mapping[str, CountRoute] = {}
    """POST of a count of tokens, by its path."""
    sockets: tuple[str, ...] = ()
    """Paths that clients GET for a WebSocket; the proxy answers that there is none."""
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
        """The dialect of errors at routes that are no call."""
        return next(iter(self.calls.values()))
