"""Whose request is answered. Pure.

A browser sends requests also for pages of others. So each must name a host of ours (else a foreign
name could be made to lead here), come from our own pages or from the address bar, and bring the
token where one is set. The console only reads, so GET and HEAD are all that it answers.
"""

import hmac
from base64 import b64decode
from binascii import Error as NoBase64
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from odradek.infra.errors import VisitRefused

READS: Final = frozenset({"GET", "HEAD"})
OWN_SITE: Final = frozenset({"", "same-origin", "none"})
"""`Sec-Fetch-Site` of requests from our pages, the address bar or a program."""


class Visit(Struct, frozen=True, kw_only=True):
    """What of a request says whose it is; a header that is absent is empty."""

    method: str = "GET"
    scheme: str = "http"
    host: str = ""
    origin: str = ""
    site: str = ""
    """`Sec-Fetch-Site`."""
    mode: str = ""
    """`Sec-Fetch-Mode`."""
    destination: str = ""
    """`Sec-Fetch-Dest`."""
    authorization: str = ""


class Access(Struct, frozen=True):
    """The rules.

    Args:
        hosts: That a request may name, in lower case.
        token: That each request must bring; empty: none.
    """

    hosts: frozenset[str]
    token: str = ""

    def check(self, visit: Visit) -> None:
        """Let a request pass. Raises VisitRefused."""
        if visit.method not in READS:
            raise VisitRefused(405, "the console only reads: it answers GET and HEAD")
        if host_named(visit.host) not in self.hosts:
            raise VisitRefused(
                421,
                "this console is not called by that name: use the address that it printed, or add "
                "the name to ODRADEK_CONSOLE_NAMES",
            )
        if visit.origin and visit.origin.lower() != f"{visit.scheme}://{visit.host}".lower():
            raise VisitRefused(403, "another site asked: open the console by its own address")
        if visit.site not in OWN_SITE and not _by_link(visit):
            raise VisitRefused(403, "another site's page asked: only links may lead here")
        if self.token and not hmac.compare_digest(_brought(visit), self.token.encode()):
            raise VisitRefused(
                401, "give ODRADEK_CONSOLE_TOKEN as the password, under any name of a user"
            )


def host_named(header: str) -> str:
    """The host of a `Host` header in lower case, without port and brackets; "" where it is none."""
    try:
        parts = urlsplit(f"//{header}")
        _ = parts.port  # raises where it is no port
    except ValueError:
        return ""
    whole = not (parts.path or parts.query or parts.fragment or "@" in header)
    return (parts.hostname or "") if whole else ""


def _brought(visit: Visit) -> bytes:
    """The token that a request brings; b"" where it brings none."""
    scheme, _, value = visit.authorization.partition(" ")
    match scheme.lower():
        case "bearer":
            return value.strip().encode(errors="replace")
        case "basic":
            try:
                return b64decode(value.strip(), validate=True).partition(b":")[2]
            except (NoBase64, ValueError):
                return b""
    return b""


def _by_link(visit: Visit) -> bool:
    """Whether a person followed another page's link: that page cannot read the answer."""
    return visit.mode == "navigate" and visit.destination == "document"
