"""Settings of the console."""

import re
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings

from odradek.infra.errors import ConsoleMisconfigured
from odradek.infra.runtime.addresses import Host, on_loopback
from odradek.infra.runtime.settings import CheckedSettings, from_environment

SHORTEST_TOKEN: Final = 32
"""Characters, as of the keys of episode tokens."""
NAME: Final = re.compile(r"[a-z0-9._:-]{1,253}")
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


def _names(text: str) -> str:
    names = [name.strip(" []").lower() for name in text.split(",") if name.strip(" ")]
    if not all(NAME.fullmatch(name) for name in names):
        raise ValueError("must be names of hosts, comma separated: console.example.org")
    return ",".join(names)


class ConsoleSettings(CheckedSettings, BaseSettings):
    """Settings of the console, from `ODRADEK_CONSOLE_*`."""

    model_config = from_environment("ODRADEK_CONSOLE_")

    host: Host = "127.0.0.1"
    """Where to listen. On another address than loopback it wants `token`, `certificate` and `key`.
    """
    port: int = Field(default=8600, ge=0, le=65535)
    """The port; 0 takes a free one."""
    names: Annotated[str, AfterValidator(_names)] = ""
    """Names of hosts, comma separated, by which browsers may call it beside its own address. Every
    other name is refused: a page elsewhere could have its name lead here (DNS rebinding)."""
    token: SecretStr = SecretStr("")
    """A secret of 32 characters or more that every request must bring: as the password of HTTP's
    Basic scheme, which browsers ask for, or as a Bearer token."""
    certificate: Path | None = None
    """The chain of certificates for TLS, a PEM file."""
    key: Path | None = None
    """The certificate's private key, a PEM file."""

    def check(self) -> None:
        """Hold the settings against each other. Raises ConsoleMisconfigured."""
        for line in self._contradictions():
            raise ConsoleMisconfigured(line)

    def _contradictions(self) -> Iterator[str]:
        """Each reason not to start, with what to do."""
        token = self.token.get_secret_value()
        if token and len(token) < SHORTEST_TOKEN:
            yield (
                f"ODRADEK_CONSOLE_TOKEN has under {SHORTEST_TOKEN} characters: make one with "
                "`openssl rand -hex 32`"
            )
        if (self.certificate is None) != (self.key is None):
            yield "TLS needs both: set ODRADEK_CONSOLE_CERTIFICATE and ODRADEK_CONSOLE_KEY"
        if on_loopback(self.host):
            return
        if not token:
            yield (
                f"refusing to listen on {self.host} without a token: set "
                "ODRADEK_CONSOLE_TOKEN=$(openssl rand -hex 32), or listen on 127.0.0.1"
            )
        if self.certificate is None:
            yield (
                f"refusing to listen on {self.host} without TLS, which would show the token to "
                "others: set ODRADEK_CONSOLE_CERTIFICATE and ODRADEK_CONSOLE_KEY, or listen on "
                "127.0.0.1"
            )
        if _on_all(self.host) and not self.names:
            yield (
                f"{self.host} is every address of this machine, and none that a browser calls: "
                "name the hosts in ODRADEK_CONSOLE_NAMES, or listen on one address"
            )

    @property
    def callable_by(self) -> frozenset[str]:
        """The hosts that a request may name, in lower case, without ports and brackets."""
        own = LOOPBACK if on_loopback(self.host) else () if _on_all(self.host) else (self.host,)
        return frozenset({*(name.lower() for name in own), *filter(None, self.names.split(","))})


def _on_all(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False
