"""Episode tokens: minted by agent hosts, checked by the proxy.

JSON Web Tokens (RFC 7519) signed with HS256. `ODRADEK_TOKEN_KEYS` holds the keys, comma
separated: the first signs, all are accepted, so a key can be rotated without a pause.
"""

import secrets
import time
from typing import Any, Final, Literal

import jwt
import msgspec
from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from odradek.infra.errors import ProjectError, TokenError
from odradek.infra.runtime.settings import CheckedSettings

AUDIENCE: Final = "odradek-proxy"
ALGORITHM: Final = "HS256"
SHORTEST_KEY: Final = 32
LONGEST: Final = 8192
"""Characters of a token; longer ones are not looked at."""

Scope = Literal["call", "host"]


class TokenSettings(CheckedSettings, BaseSettings):
    """The keys of episode tokens."""

    model_config = SettingsConfigDict(
        env_ignore_empty=True, frozen=True, populate_by_name=True, use_attribute_docstrings=True
    )

    keys: SecretStr = Field(
        default=SecretStr(""), validation_alias=AliasChoices("keys", "ODRADEK_TOKEN_KEYS")
    )
    """Secrets of 32 characters or more, comma separated; the first signs."""

    def secrets(self) -> list[str]:
        """The keys in order. Raises ProjectError if there is none or one is short."""
        keys = [key for key in self.keys.get_secret_value().split(",") if key]
        if not keys:
            raise ProjectError(
                "no token key is set: export ODRADEK_TOKEN_KEYS=$(openssl rand -hex 32) "
                "for the proxy and the agent hosts alike"
            )
        if any(len(key) < SHORTEST_KEY for key in keys):
            raise ProjectError(f"a key in ODRADEK_TOKEN_KEYS has under {SHORTEST_KEY} characters")
        return keys


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """The claims of a token."""

    sub: str
    """The episode; for a host's token it may be "*": any episode."""
    scope: Scope = "call"
    agent: str = ""
    task_id: str = ""
    model: str = ""
    sampling: dict[str, Any] = {}
    """Request fields that the proxy sets on each call."""
    max_calls: int = 0
    """Calls that the episode may make; 0: as many as the proxy allows any episode."""
    max_tokens: int = 0
    """Tokens that it may use, prompts and replies; 0 as above."""
    call_s: float = 120.0
    trace: str = ""
    """W3C traceparent of the run: calls of an SDK that knows of no traces join it."""
    exp: float = 0.0
    """Unix time of its end."""


def new_key() -> str:
    """A fresh signing key."""
    return secrets.token_hex(32)


def mint(claims: Claims, keys: list[str], *, lifetime_s: float = 3600.0) -> str:
    """A signed token that ends in `lifetime_s` seconds, unless the claims say when."""
    payload = msgspec.to_builtins(claims)
    payload["exp"] = claims.exp or time.time() + lifetime_s
    payload["aud"] = AUDIENCE
    return jwt.encode(payload, keys[0], algorithm=ALGORITHM)


def read(token: str, keys: list[str]) -> Claims:
    """The claims of a token. Raises TokenError: `malformed`, `expired` or `forged`."""
    if len(token) > LONGEST or not token.isascii():
        raise TokenError("malformed")
    for key in keys:
        try:
            payload = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                options={"require": ["exp", "sub", "aud"]},
            )
            return msgspec.convert(payload, Claims)
        except jwt.InvalidSignatureError:
            continue
        except jwt.ExpiredSignatureError:
            raise TokenError("expired") from None
        except (jwt.InvalidTokenError, msgspec.ValidationError):
            raise TokenError("malformed") from None
    raise TokenError("forged")


def check(claims: Claims, *, episode_id: str, scope: Scope, now: float) -> None:
    """Check claims against the request. Raises TokenError."""
    if claims.exp and claims.exp < now:
        raise TokenError("expired")
    if claims.scope != scope:
        raise TokenError("wrong_scope")
    if claims.sub != episode_id and not (scope == "host" and claims.sub == "*"):
        raise TokenError("other_episode")
