"""Where keys of requests are, and where requests need none."""

import ipaddress
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic_settings import BaseSettings, SettingsConfigDict

from odradek.infra.runtime.settings import CheckedSettings

Policy = Literal["accept", "refuse"]


class TrustSettings(CheckedSettings, BaseSettings):
    """Keys of signed requests, from `ODRADEK_TRUST_*`."""

    model_config = SettingsConfigDict(
        env_prefix="ODRADEK_TRUST_",
        env_ignore_empty=True,
        frozen=True,
        use_attribute_docstrings=True,
    )

    signing_key: Path | None = None
    """File with the private key by which this process signs its requests (gateway, dispatcher, any
    client of agents). `odradek keys new` writes it."""
    verification_keys: Path | None = None
    """Folder, or file, with the public keys by which a host verifies requests. A key that is added
    counts within seconds."""
    unsigned: Policy | None = None
    """Whether requests without a signature are carried out. Not given: `accept` where Kafka is on
    loopback, else `refuse`."""


def accepts_unsigned(policy: Policy | None, bootstrap_servers: str) -> bool:
    """Whether requests without a signature are carried out. Pure.

    Args:
        policy: The setting.
        bootstrap_servers: host:port of the brokers, comma separated.
    """
    if policy is not None:
        return policy == "accept"
    servers = [server for server in bootstrap_servers.split(",") if server.strip()]
    return bool(servers) and all(is_loopback(_host(server)) for server in servers)


def is_loopback(host: str) -> bool:
    """Whether an address, or the name localhost, is of this very machine."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False  # another name may lead anywhere, and elsewhere tomorrow
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _host(server: str) -> str:
    try:
        return urlsplit(f"kafka://{server.strip()}").hostname or ""
    except ValueError:
        return ""
