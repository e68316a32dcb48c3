"""Correct the environment's proxy variables before our code reads them.

A company's HTTP proxy must not stand between programs on one host, and a folder's name must be the
same for Python, for libraries in Rust, and for the programs that we start.
"""

import os
import sys
from collections.abc import Mapping
from ipaddress import IPv6Address
from typing import Final
from urllib.parse import urlsplit

OURS: Final = ("ODRADEK_PROXY_URL", "ODRADEK_ENGINE_URL")
"""Variables that name servers of this installation; they are never reached through a proxy."""
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
PROXIES: Final = frozenset({"http_proxy", "https_proxy", "all_proxy"})
"""Variables that name a proxy, in their lower spelling."""


def direct(environ: Mapping[str, str], *urls: str) -> dict[str, str]:
    """NO_PROXY and no_proxy, completed with loopback and the hosts of our own servers.

    Args:
        environ: What a program would get.
        urls: More addresses that it must reach directly.

    Some programs read one spelling and some the other, so both say the same; only what makes httpx
    raise stands in NO_PROXY alone: Python prefers the lower spelling, and Go, which understands it,
    the upper.
    """
    exempt = [
        _bare(part) for name in ("NO_PROXY", "no_proxy") for part in _parts(environ.get(name, ""))
    ]
    if "*" in exempt:
        return {"NO_PROXY": "*", "no_proxy": "*"}
    named = [url for name in OURS for url in _parts(environ.get(name, ""))]
    hosts = [host for url in (*urls, *named) if (host := host_of(url))]
    whole = list(dict.fromkeys([*exempt, *LOOPBACK, *hosts]))
    return {"NO_PROXY": ",".join(whole), "no_proxy": ",".join(filter(_plain, whole))}


def unusable(environ: Mapping[str, str]) -> list[str]:
    """Names of variables whose proxy stops httpx, and so the SDKs of agents, at its first line.

    httpx refuses an unknown scheme (such as the `socks://` of desktop settings), SOCKS without the
    package socksio, and an invalid address, even if no call of an agent would go there.
    """
    named = {name: url for name, url in environ.items() if url and name.lower() in PROXIES}
    return [name for name, url in named.items() if not _usable(url)]


def address(host: str, port: int) -> str:
    """The root of a server that listens there."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def settle() -> list[str]:
    """Complete this process' own variables, which all that it starts inherits.

    Under a locale that is not UTF-8 the process begins anew in Python's UTF-8 mode (PEP 540): a
    library in Rust would not find a folder that Python has read as Latin-1 or as surrogates.

    Returns:
        A line for people about each variable that was taken away.
    """
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - the very command that we are
    os.environ.update(direct(os.environ))
    # Names only: the address of a proxy may hold a password.
    removed = unusable(os.environ)
    for name in removed:
        del os.environ[name]
    return [
        f"{name} is left out: it names a proxy that httpx, and so OpenAI's and Anthropic's SDKs, "
        "cannot use here (for SOCKS5: pip install socksio)"
        for name in removed
    ]


def _parts(text: str) -> list[str]:
    return [part for part in (piece.strip() for piece in text.split(",")) if part]


def _bare(part: str) -> str:
    """An address without the brackets for which httpx raises; all others take both."""
    return part[1:-1] if part.startswith("[") and part.endswith("]") else part


def _plain(part: str) -> bool:
    """Whether httpx takes it: it knows no networks and no ports of IPv6, and no name in Unicode."""
    if "://" not in part and part.count(":") > 1:
        try:
            IPv6Address(part)
        except ValueError:
            return False
    return part.isascii()


def _usable(url: str) -> bool:
    """Whether httpx makes a client for this proxy: only it knows all that it refuses."""
    import httpx  # a2a-sdk brings it; only those who have a proxy wait for it

    try:
        httpx.HTTPTransport(
            proxy=httpx.Proxy(url if "://" in url else f"http://{url}"), verify=False
        ).close()
    except (ValueError, ImportError, httpx.InvalidURL):
        return False
    return True


def host_of(url: str) -> str:
    """The host of an address, "" where there is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # whoever uses the address says what is wrong with it
        return ""
