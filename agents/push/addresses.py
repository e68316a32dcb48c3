"""Where webhooks may be: pure. What looks inwards is refused, in every spelling.

`webhook_hosts` is the only way to a loopback, private or otherwise special address. A URL is held
against these rules as it is registered. What its name resolves to is held against them each time
that a connection is made (`resolver`), so a name that points elsewhere later is refused then.
"""

import ipaddress
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import SplitResult, urlsplit

import msgspec

from odradek.agents.errors import WebhookRefused
from odradek.agents.webhook_hosts import HOST, NUMBER, Network, network, split

LONGEST: Final = 2048
"""Characters of a webhook's URL."""
PORTS: Final = {"http": 80, "https": 443}
PRIVILEGED: Final = 1024
"""Below it stand mail servers, shells and databases; of these ports only HTTP's own are used."""
VISIBLE: Final = re.compile(r"[\x21-\x7e]+")
NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
COMPATIBLE: Final = ipaddress.ip_network("::/96")
INSIDE: Final = tuple(
    ipaddress.ip_network(text) for text in ("fec0::/10", "64:ff9b:1::/48", "192.88.99.0/24")
)
"""Special networks that Python's `is_global` takes for public."""

IP = ipaddress.IPv4Address | ipaddress.IPv6Address


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a webhook's URL that say where it is."""

    scheme: str
    host: str
    """Lower case, without brackets and without a dot at its end."""
    port: int


class WebhookRules:
    """Which webhooks may be called.

    Args:
        hosts: Names, addresses and networks that may be called although they are not public, comma
            separated, such as `hooks.internal,10.1.0.0/16`.
        brokers: Bootstrap servers; their ports are never called.
    """

    def __init__(self, hosts: str = "", brokers: str = "") -> None:
        self._names: set[str] = set()
        self._networks: list[Network] = []
        for entry in split(hosts):
            listed = network(entry)
            if listed is None:
                self._names.add(entry.lower().rstrip("."))
            else:
                self._networks.append(listed)
        self._ports = {int(port) for port in re.findall(r":(\d+)\s*(?:,|$)", brokers)}

    def check(self, url: str) -> Webhook:
        """Where a URL points, without asking any resolver. Raises WebhookRefused."""
        webhook = _parsed(url)
        port = webhook.port
        if port in self._ports or (port < PRIVILEGED and port not in PORTS.values()):
            raise WebhookRefused("port_forbidden", f"port {port} is no webhook's")
        address = _literal(webhook.host)
        if address is not None:
            self.check_address(webhook.host, address)
        elif webhook.host == "localhost" or webhook.host.endswith(".localhost"):
            self.check_address(webhook.host, ipaddress.IPv4Address("127.0.0.1"))
        return webhook

    def check_address(self, host: str, address: IP) -> None:
        """Raise WebhookRefused unless a host may be called at an address."""
        if host.lower().rstrip(".") in self._names or self._listed(address):
            return
        if not public(address):
            raise WebhookRefused(
                "address_forbidden",
                "it is no public address (ODRADEK_WEBHOOK_HOSTS lists those that may be called)",
            )

    def _listed(self, address: IP) -> bool:
        mapped = getattr(address, "ipv4_mapped", None) or address
        return any(mapped in network for network in self._networks)


def public(address: IP) -> bool:
    """Whether an address, and each one that it embeds, is a host of the public internet."""
    return all(_plain_public(each) for each in (address, *_embedded(address)))


def _plain_public(address: IP) -> bool:
    if getattr(address, "ipv4_mapped", None) is not None or address in NAT64:
        return True  # as public as the address inside it, which is looked at by itself
    return (
        address.is_global
        and not (address.is_multicast or address.is_reserved or address.is_unspecified)
        and not any(address in network for network in INSIDE)
    )


def _embedded(address: IP) -> Iterator[IP]:
    """IPv4 addresses inside an IPv6 address (RFC 4291, 3056, 4380, 6052)."""
    if isinstance(address, ipaddress.IPv4Address):
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if address in NAT64 or address in COMPATIBLE:
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)


def _parsed(url: str) -> Webhook:
    """The parts of a URL in which no two parsers can see different hosts. Raises WebhookRefused."""
    if len(url) > LONGEST or not VISIBLE.fullmatch(url) or "\\" in url:
        raise WebhookRefused("bad_url", f"it must be up to {LONGEST} visible ASCII characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise WebhookRefused("bad_url", "its host or its port cannot be read") from None
    if parts.scheme not in PORTS:
        raise WebhookRefused("scheme_forbidden", "it must begin with http:// or https://")
    if "@" in parts.netloc:
        raise WebhookRefused("userinfo", "it holds a credential: use `authentication`")
    if port == 0:
        raise WebhookRefused("port_forbidden", "port 0 is no webhook's")
    return Webhook(scheme=parts.scheme, host=_host(parts), port=port or PORTS[parts.scheme])


def _host(parts: SplitResult) -> str:
    host = (parts.hostname or "").lower()
    if "[" in parts.netloc and "%" not in host:
        try:
            return str(ipaddress.IPv6Address(host))
        except ValueError:
            raise WebhookRefused("bad_url", "its address cannot be read") from None
    if not HOST.fullmatch(host):
        raise WebhookRefused("bad_url", "it names no host in ASCII letters, digits, dots and -")
    return host.rstrip(".")


def _literal(host: str) -> IP | None:
    """The address that a host spells, or None for a name. Raises WebhookRefused.

    Resolvers take 127.1, 0177.0.0.1, 0x7f000001 and 2130706433 for 127.0.0.1. No webhook needs
    such a spelling, so only the usual one passes.
    """
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        if NUMBER.fullmatch(host.rpartition(".")[2]):
            raise WebhookRefused("bad_url", "write its address as four decimal numbers") from None
        return None


def parsed_address(text: str) -> IP:
    """An address as a resolver gives it, without the zone of a link-local one."""
    return ipaddress.ip_address(text.partition("%")[0])
