"""What the machine around us says, put right before anything of ours listens to it.

A company's HTTP proxy must not stand between programs on one host, and a folder's name must be the
same for Python, for libraries in Rust, and for the programs that we start.
"""

import os
import sys
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

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
    hosts = [host for url in (*urls, *named) if (host := host_of(url))]
    whole = ",".join(dict.fromkeys([*given, *LOOPBACK, *hosts]))
    return {"NO_PROXY": whole, "no_proxy": whole}


def address(host: str, port: int) -> str:
    """The root of a server that listens there."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


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


def host_of(url: str) -> str:
    """The host of an address, "" where there is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # whoever uses the address says what is wrong with it
        return ""
