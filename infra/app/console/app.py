"""Answering requests: who asks, what for, and the page of it."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from aiohttp import web

from odradek.infra.app.console.access import Access, Visit
from odradek.infra.app.console.addresses import PageAddress, parse
from odradek.infra.app.console.page import STYLE, error_html, front_html, page_html, run_html
from odradek.infra.app.console.run.addresses import parse_run
from odradek.infra.app.console.run.curves import RunCurves
from odradek.infra.app.console.run.views import run_page, runs_table
from odradek.infra.app.console.views import page_view
from odradek.infra.app.console.windows import parts
from odradek.infra.errors import BusError, PageRefused, VisitRefused
from odradek.streams.errors import HistoryGone, HistoryUnknown

log = logging.getLogger("odradek")

POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
"""No script at all: there is none, so whatever a text holds, nothing runs."""
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
STATUS: Final[tuple[tuple[type[Exception], int], ...]] = (
    (PageRefused, 400),
    (HistoryUnknown, 404),
    (HistoryGone, 410),
    (BusError, 503),
    (TimeoutError, 504),
)
"""Errors that have a page of their own, and its status."""
SLOW: Final = "the look-up took too long: name it by its place, TOPIC/PARTITION/OFFSET"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Views(Protocol):
    """Where pages come from."""

    async def runs(self) -> dict[str, RunCurves]:
        """The curves of all runs; see `LogViews.runs`."""
        ...

    async def view(self, address: PageAddress) -> Any:
        """What an address names, or a better address of it; see `LogViews.view`."""
        ...


class ConsoleApp:
    """The console as an aiohttp application.

    Args:
        views: Where pages come from.
        access: Whose requests are answered.
    """

    def __init__(self, views: Views, access: Access) -> None:
        self._views = views
        self._access = access

    def application(self) -> web.Application:
        """Routes, with the checks of each request before them."""
        app = web.Application(middlewares=[self._checked])
        app.on_response_prepare.append(_with_headers)
        app.router.add_get("/", self._front)
        app.router.add_get("/console.css", self._style)
        app.router.add_get("/look", self._look)
        app.router.add_get("/run", self._run)
        app.router.add_get("/{what}", self._page)
        return app

    @web.middleware
    async def _checked(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer a request, or say in a page of its own why not."""
        try:
            self._access.check(_visit_of(request))
            return await handler(request)
        except VisitRefused as error:
            return _refused(error.status, str(error))
        except web.HTTPNotFound:
            return _refused(404, "there is no such page")
        except tuple(kind for kind, _ in STATUS) as error:
            status = next(status for kind, status in STATUS if isinstance(error, kind))
            return _refused(status, SLOW if isinstance(error, TimeoutError) else str(error))

    async def _front(self, request: web.Request) -> web.Response:
        """The runs; a log that is away is no reason to show nothing."""
        del request
        try:
            curves = await self._views.runs()
        except (BusError, TimeoutError) as error:
            return _html(front_html(line=str(error) or "the log does not answer"))
        return _html(front_html(list(parts(runs_table(curves)))))

    async def _run(self, request: web.Request) -> web.Response:
        address = parse_run(request.query.items())
        return _html(run_html(run_page(await self._views.runs(), address)))

    async def _style(self, request: web.Request) -> web.Response:
        del request
        return web.Response(text=STYLE, content_type="text/css")

    async def _look(self, request: web.Request) -> web.Response:
        """What the form above each page asks for, as the address of a page."""
        address = parse(request.query.get("what", ""), request.query)
        raise web.HTTPSeeOther(address.href)

    async def _page(self, request: web.Request) -> web.Response:
        address = parse(request.match_info["what"], request.query)
        view = await self._views.view(address)
        if isinstance(view, PageAddress):
            raise web.HTTPSeeOther(view.href)
        return _html(page_html(page_view(view, address)))


def _visit_of(request: web.Request) -> Visit:
    """What of a request says whose it is."""
    return Visit(
        method=request.method,
        scheme=request.scheme,
        host=request.headers.get("Host", ""),
        origin=request.headers.get("Origin", ""),
        site=request.headers.get("Sec-Fetch-Site", ""),
        mode=request.headers.get("Sec-Fetch-Mode", ""),
        destination=request.headers.get("Sec-Fetch-Dest", ""),
        authorization=request.headers.get("Authorization", ""),
    )


async def _with_headers(request: web.Request, response: web.StreamResponse) -> None:
    del request
    response.headers.update(HEADERS)


def _html(text: str, status: int = 200) -> web.Response:
    return web.Response(text=text, status=status, content_type="text/html")


def _refused(status: int, line: str) -> web.Response:
    response = _html(error_html(status, line), status)
    if status == web.HTTPUnauthorized.status_code:
        response.headers["WWW-Authenticate"] = 'Basic realm="odradek console", charset="UTF-8"'
    if status == web.HTTPMethodNotAllowed.status_code:
        response.headers["Allow"] = "GET, HEAD"
    return response
