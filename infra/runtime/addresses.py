"""Addresses in settings: where to listen, and where our servers are."""

import re
from ipaddress import IPv6Address, ip_address
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator

from odradek.infra.runtime.environment import host_of

BROKER: Final = re.compile(r"(\[[0-9A-Fa-f:.]+(%\w+)?\]|[^\s/@:\[\]?#]+)(:\d+)?")


def _host(text: str) -> str:
    host = text.strip().strip("[]")
    if not host or re.search(r"[\s/@,]", host):
        raise ValueError("must be one address of this machine: 127.0.0.1")
    return host


Host = Annotated[str, AfterValidator(_host)]
"""An address to listen on; IPv6 with brackets or without, since addresses of servers have them."""


def on_loopback(host: str) -> bool:
    """Whether only this machine reaches an address; of names only `localhost` is known to be."""
    try:
        address = ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def root(text: str) -> str:
    """The address of one server, without a slash or /v1 at its end. Raises ValueError."""
    if "@" in text:
        raise ValueError("holds a credential, which would be printed: calls bring their own")
    addresses = roots(text)
    if len(addresses) != 1:
        raise ValueError("must be one address: http://127.0.0.1:8400")
    return addresses[0]


Root = Annotated[str, AfterValidator(root)]
"""Where one server is."""


def roots(text: str) -> tuple[str, ...]:
    """Addresses of servers, comma separated, each once and without a slash or /v1 at its end.

    Raises ValueError, which never quotes an address: it may hold a credential.
    """
    parts = (url.strip() for url in text.split(","))
    urls = [url.rstrip("/").removesuffix("/v1") for url in parts if url]
    for url in urls:
        if not url.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        if "@" in url:
            raise ValueError(
                "holds a credential, which would be printed (the proxy has engine_key)"
            )
        if re.search(r"[\s?#]", url):
            raise ValueError("holds a space, a ? or a #: write http://127.0.0.1:8000")
        if not host_of(url) or not _port(url):
            raise ValueError("names no host, or a port that is none: http://127.0.0.1:8000")
    once: dict[tuple[object, ...], str] = {}
    for url in urls:
        once.setdefault(_place(url), url)
    return tuple(once.values())


def _place(url: str) -> tuple[object, ...]:
    """The same for all spellings of an address: hosts have no case, ports have defaults."""
    parts = urlsplit(url)
    return (
        parts.scheme,
        parts.hostname,
        parts.port or (443 if parts.scheme == "https" else 80),
        parts.path,
    )


def brokers(text: str) -> str:
    """Brokers, comma separated, each once; "" names none.

    Raises ValueError, which never quotes an address.
    """
    if not text:
        return ""
    addresses = dict.fromkeys(part.strip() for part in text.split(","))
    if not all(BROKER.fullmatch(address) and _port(f"kafka://{address}") for address in addresses):
        raise ValueError("must be host:port of one or more brokers, comma separated, and no more")
    return ",".join(addresses)


def _port(url: str) -> bool:
    """Whether an address has a port that can be one, or none."""
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False
