"""Keys of JSON Web Tokens: a JWK Set (RFC 7517) in a file or at a URL, fetched when it is due."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import aiohttp
import jwt
import msgspec

from odradek.agents.errors import KeysUnavailable
from odradek.agents.gateway.access.refresh import RefreshSchedule
from odradek.agents.trust.settings import is_loopback
from odradek.infra.errors import ProjectError
from odradek.infra.runtime.environment import host_of

logger = logging.getLogger("odradek")

ALGORITHMS: Final = {
    ("RSA", ""): ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
"""By a key's type and curve: what it may sign by; the first where it names none. No secrets."""
LARGEST: Final = 256 * 1024
"""Bytes of a JWK Set."""
FETCH_S: Final = 5.0

Fetch = Callable[[], Awaitable[bytes]]


class TokenKey(msgspec.Struct, frozen=True):
    """A key that verifies tokens, with its one algorithm."""

    key: Any
    algorithm: str


class TokenKeys:
    """The keys of a JWK Set by their ids, fresh.

    Args:
        fetch: Gives the set's bytes. Raises OSError, aiohttp.ClientError or TimeoutError.
        source: Its name, for logs.
    """

    def __init__(self, fetch: Fetch, source: str) -> None:
        self._fetch = fetch
        self._source = source
        self._keys: dict[str, TokenKey] = {}
        self._schedule = RefreshSchedule()
        self._fetching = asyncio.Lock()

    @classmethod
    def at(cls, source: str) -> "TokenKeys":
        """The keys of a file or of a URL.

        Raises ProjectError for a URL whose answer others could change: it must be https, or on
        this machine.
        """
        if "://" not in source:
            return cls(lambda: asyncio.to_thread(_read, Path(source)), source)
        secure = source.startswith("https://")
        if not secure and not (source.startswith("http://") and is_loopback(host_of(source))):
            raise ProjectError("ODRADEK_GATEWAY_JWKS must be a file or an https:// URL")
        return cls(lambda: _get(source), source)

    async def key(self, kid: str) -> TokenKey | None:
        """A key by its id. Raises KeysUnavailable while there are none at all."""
        if self._schedule.due(time.monotonic(), absent=kid not in self._keys):
            async with self._fetching:
                # Those who waited find that it has been done.
                if self._schedule.due(time.monotonic(), absent=kid not in self._keys):
                    await self._refresh()
        if not self._keys:
            raise KeysUnavailable("the keys of tokens cannot be fetched")
        return self._keys.get(kid)

    async def _refresh(self) -> None:
        """Fetch the keys; where that fails, those that are there stay."""
        try:
            self._keys = usable(await self._fetch())
        except (OSError, aiohttp.ClientError, TimeoutError, msgspec.DecodeError) as error:
            self._schedule.failed(time.monotonic())
            logger.warning("keys of tokens at %s: %r", self._source, error)
            return
        self._schedule.fetched(time.monotonic())


def usable(value: bytes) -> dict[str, TokenKey]:
    """The public keys of a JWK Set that verify signatures, by id. Pure.

    Left out are secrets (`oct`), keys for encryption, those without an id, and what cannot be read.
    Raises msgspec.DecodeError for bytes that are no JWK Set.
    """
    listed = msgspec.json.decode(value, type=dict[str, Any]).get("keys")
    if not isinstance(listed, list):
        raise msgspec.DecodeError("it has no list of keys")
    keys: dict[str, TokenKey] = {}
    for fields in listed:
        if not isinstance(fields, dict) or fields.get("use", "sig") != "sig":
            continue
        kid = fields.get("kid")
        kind = (str(fields.get("kty")), str(fields.get("crv", "")))
        allowed = ALGORITHMS.get(kind, ())
        algorithm = fields.get("alg", allowed[0] if allowed else None)
        if algorithm not in allowed or not isinstance(kid, str) or not kid:
            continue
        public = {name: text for name, text in fields.items() if name != "d"}
        try:
            keys[kid] = TokenKey(jwt.PyJWK(public, algorithm).key, algorithm)
        except (jwt.PyJWTError, ValueError, TypeError):
            continue
    return keys


def _read(path: Path) -> bytes:
    return path.read_bytes()


async def _get(url: str) -> bytes:
    timeout = aiohttp.ClientTimeout(total=FETCH_S)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.get(url, allow_redirects=False) as answer,
    ):
        if answer.status != 200:
            raise aiohttp.ClientError(f"it answers {answer.status}")
        value = await answer.content.read(LARGEST + 1)
        while len(value) <= LARGEST and (more := await answer.content.read(LARGEST)):
            value += more
        if len(value) > LARGEST:
            raise aiohttp.ClientError(f"it has over {LARGEST} bytes")
        return value
