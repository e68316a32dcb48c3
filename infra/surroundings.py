"""What the machine around us says, put right before anything of ours listens to it.

A company's HTTP proxy must not stand between programs on one host, and a folder's name must be the
same for Python, for libraries in Rust, and for the programs that we start.
"""

import os
import sys
from collections.abc import Mapping
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator

Host = Annotated[str, AfterValidator(lambda host: host.strip().strip("[]"))]
"""An address to listen on; IPv6 with brackets or without, since addresses of servers have them."""
OURS: Final = ("ODRADEK_PROXY_URL", "ODRADEK_ENGINE_URL", "ODRADEK_TRAINER_ENGINE_URLS")
"""Variables that name servers of this installation; they are never reached through a proxy."""
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
"""Without brackets: httpx raises for `[::1]`, others take both."""


def direct(environ: Mapping[str, str], *urls: str) -> dict[str, str]:
    """NO_PROXY and no_proxy, completed with loopback and the hosts of our own servers.

    Args:
        environ: What a program would get.
        urls: More addresses that it must reach directly.

    Some programs read one spelling and some the other, so both say the same.
    """
    given = [part for name in ("NO_PROXY", "no_proxy") for part in _parts(environ.get(name, ""))]
    if "*" in given:
        return {"NO_PROXY": "*", "no_proxy": "*"}
    named = [url for name in OURS for url in _parts(environ.get(name, ""))]
    hosts = [host for url in (*urls, *named) if (host := _host(url))]
    whole = ",".join(dict.fromkeys([*given, *LOOPBACK, *hosts]))
    return {"NO_PROXY": whole, "no_proxy": whole}


def address(host: str, port: int) -> str:
    """The root of a server that listens there."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def roots(text: str) -> tuple[str, ...]:
    """Addresses of servers, comma separated, each once and without a slash or /v1 at its end.

    Raises ValueError, which never quotes an address: it may hold a credential.
    """
    found = [url.rstrip("/").removesuffix("/v1") for url in _parts(text)]
    for url in found:
        if not url.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        if "@" in url:
            raise ValueError(
                "holds a credential, which would be printed (the proxy has engine_key)"
            )
        if not _host(url) or not _port(url):
            raise ValueError("names no host, or a port that is none: http://127.0.0.1:8000")
    return tuple(dict.fromkeys(found))


def settle() -> None:
    """Complete this process' own variables, which all that it starts inherits.

    Under a locale that is not UTF-8 the process begins anew in Python's UTF-8 mode (PEP 540): a
    library in Rust would not find a folder that Python has read as Latin-1 or as surrogates.
    """
    os.environ.update(direct(os.environ))
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - the very command that we are


def _parts(text: str) -> list[str]:
    return [part for part in (each.strip() for each in text.split(",")) if part]


def _port(url: str) -> bool:
    """Whether an address has a port that can be one, or none."""
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # whoever uses the address says what is wrong with it
        return ""
