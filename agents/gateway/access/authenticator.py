"""Who asks the gateway: a bearer key or a JSON Web Token says so, or nobody does."""

from typing import Final, Self

import jwt
from a2a.types.a2a_pb2 import HTTPAuthSecurityScheme, SecurityScheme

from odradek.agents.errors import Unauthenticated
from odradek.agents.gateway.access.bearer_keys import MARK, BearerKeys
from odradek.agents.gateway.access.jwks import TokenKeys
from odradek.agents.settings import GatewaySettings
from odradek.agents.trust.settings import is_loopback
from odradek.infra.errors import ProjectError

LONGEST: Final = 8192
"""Characters of a credential; longer ones are not looked at."""
LEEWAY_S: Final = 30.0
"""How far the clocks of the gateway and of who issues tokens may be apart."""
NAME_LENGTH: Final = 200
"""Characters of a principal's name."""


class TokenVerifier:
    """Reads JSON Web Tokens (RFC 7519, RFC 8725).

    Args:
        keys: Of who issues them.
        issuer: Who that is.
        audience: What they must be for.
    """

    def __init__(self, keys: TokenKeys, *, issuer: str, audience: str) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience

    async def subject(self, token: str) -> str:
        """The token's subject. Raises Unauthenticated, KeysUnavailable.

        The algorithm is that of the key, whatever the token says: `none`, and an HMAC whose secret
        is a public key, are refused for that reason.
        """
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError:
            raise Unauthenticated("it is no key of ours and no JSON Web Token") from None
        known = await self._keys.key(str(header.get("kid", "")))
        if known is None or header.get("alg") != known.algorithm:
            raise Unauthenticated("the token names no key that is valid here")
        try:
            claims = jwt.decode(
                token,
                known.key,
                algorithms=[known.algorithm],
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("the token has expired") from None
        except jwt.InvalidTokenError:
            raise Unauthenticated("the token is not valid here") from None
        return str(claims["sub"])


class ClientAuthenticator:
    """Knows the gateway's clients.

    Args:
        keys: Bearer keys, if there are any.
        tokens: Reads tokens, if they are accepted.
    """

    def __init__(self, keys: BearerKeys | None, tokens: TokenVerifier | None) -> None:
        self._keys = keys
        self._tokens = tokens

    @classmethod
    def of(cls, settings: GatewaySettings) -> Self | None:
        """As the settings say; None where anybody may ask.

        Raises ProjectError where they say half of it, or would let the whole network in.
        """
        if settings.jwks and not (settings.jwt_issuer and settings.jwt_audience):
            raise ProjectError(
                "tokens are held against issuer and audience: set ODRADEK_GATEWAY_JWT_ISSUER and "
                "ODRADEK_GATEWAY_JWT_AUDIENCE beside ODRADEK_GATEWAY_JWKS"
            )
        if settings.bearer_keys is None and not settings.jwks:
            if is_loopback(settings.host):
                return None
            raise ProjectError(
                f"a gateway at {settings.host} asks for credentials: set "
                "ODRADEK_GATEWAY_BEARER_KEYS (`odradek keys bearer NAME` writes the file) or "
                "ODRADEK_GATEWAY_JWKS, or listen on 127.0.0.1"
            )
        keys = BearerKeys(settings.bearer_keys) if settings.bearer_keys is not None else None
        tokens = None
        if settings.jwks:
            tokens = TokenVerifier(
                TokenKeys.at(settings.jwks),
                issuer=settings.jwt_issuer,
                audience=settings.jwt_audience,
            )
        return cls(keys, tokens)

    @property
    def scheme(self) -> SecurityScheme:
        """What clients send, for agents' cards (A2A section 4.5)."""
        return SecurityScheme(
            http_auth_security_scheme=HTTPAuthSecurityScheme(
                scheme="Bearer", bearer_format="JWT" if self._keys is None else ""
            )
        )

    async def principal(self, credentials: list[str]) -> str:
        """The principal of a request with these values of the header Authorization.

        Raises Unauthenticated, KeysUnavailable.
        """
        if not credentials:
            raise Unauthenticated("send a key or a token: `Authorization: Bearer …`", missing=True)
        if len(credentials) > 1:
            raise Unauthenticated("there are two Authorization headers")
        scheme, _, token = credentials[0].partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token.isascii() or not 0 < len(token) <= LONGEST:
            raise Unauthenticated("it is no bearer key or token")
        if token.startswith(MARK):
            name = self._keys.principal(token) if self._keys is not None else None
            if name is None:
                raise Unauthenticated("the key is not valid here")
            return f"key/{name}"
        if self._tokens is None:
            raise Unauthenticated("it is no key of ours")
        name = await self._tokens.subject(token)
        if not 0 < len(name) <= NAME_LENGTH or not name.isprintable():
            raise Unauthenticated("the token's subject is no name")
        return f"jwt/{name}"
