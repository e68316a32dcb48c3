"""The setting `webhook_hosts`: where webhooks may be although they are not public. Pure."""

import ipaddress
import re
from typing import Annotated, Final

from pydantic import AfterValidator

HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_-]+)*\.?")
"""A host's name, as URLs have it."""
NUMBER: Final = re.compile(r"([0-9]+|0[xX][0-9A-Fa-f]*)\.?")
"""What resolvers take for a number where a host's last label looks so."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def split(text: str) -> list[str]:
    """The entries of a list that is separated by commas."""
    return [entry.strip(" ") for entry in text.split(",") if entry.strip(" ")]


def network(entry: str) -> Network | None:
    """The network, or the single address, that an entry names; None for a host's name."""
    try:
        return ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        return None


def _hosts(text: str) -> str:
    for entry in split(text):
        if network(entry) is None and (
            not HOST.fullmatch(entry) or NUMBER.fullmatch(entry.rpartition(".")[2])
        ):
            raise ValueError("must be names, addresses and networks, comma separated: 10.1.0.0/16")
    return ",".join(split(text))


WebhookHosts = Annotated[str, AfterValidator(_hosts)]
"""Names, addresses and networks, comma separated."""
