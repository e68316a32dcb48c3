"""The signed assertion of a request: a JSON Web Token in the header `a2a-assertion`. Pure.

The token's claims repeat the request: its headers, its key and the digest of its value. So a
record says what was signed or it is refused, and no canonical form of a record is needed.
"""

import base64
import hashlib
from typing import Any, Final

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from odradek.agents.binding import headers as names
from odradek.agents.binding.headers import reserved
from odradek.agents.errors import AssertionRefused
from odradek.agents.trust.keys import ALGORITHM, VerificationKey
from odradek.schemas.codec import Headers

TYPE: Final = "a2a-request+jwt"
"""Of the token, so that none that was signed for something else passes (RFC 8725, 3.11)."""
LIFETIME_S: Final = 300.0
"""How long after it was signed a request may be appended: more than a patient producer tries."""
LONGEST_S: Final = 900.0
"""The longest life that a host grants, whatever an assertion says."""
LEEWAY_S: Final = 30.0
"""How far the clocks of producer and broker may be apart."""
LONGEST: Final = 16 * 1024
"""Characters of an assertion; longer ones are not looked at."""
UNSIGNED: Final = frozenset({names.ASSERTION, names.TRACEPARENT, names.CONTENT_TYPE})
"""Headers that the claims do not repeat: intermediaries may change them."""


class AssertionClaims(msgspec.Struct, frozen=True, kw_only=True):
    """The claims of an assertion."""

    sub: str
    """The principal: who asks."""
    aud: str
    """The agent's address."""
    iat: float
    """Unix seconds."""
    exp: float
    """Unix seconds: the record must be in the log by then."""
    headers: dict[str, str]
    """The request's headers of the binding."""
    key: str
    """Of the record."""
    digest: str
    """Of its value: SHA-256, base64url without padding."""


def digest(value: bytes | None) -> str:
    """The digest of a record's value."""
    return base64.urlsafe_b64encode(hashlib.sha256(value or b"").digest()).rstrip(b"=").decode()


def bound(headers: Any) -> dict[str, str]:
    """The headers that an assertion repeats. Raises BadRequestHeader."""
    return {
        name: text
        for name, text in reserved(headers).items()
        if name.startswith(names.PREFIX) and name not in UNSIGNED
    }


def sign(
    key: Ed25519PrivateKey,
    kid: str,
    *,
    principal: str,
    audience: str,
    record_key: str | None,
    value: bytes | None,
    headers: Headers,
    now: float,
) -> bytes:
    """The value of the header `a2a-assertion`.

    Args:
        key: The producer's.
        kid: Its id.
        principal: Who asks.
        audience: The agent's address.
        record_key: Of the record.
        value: Of the record.
        headers: All others of the record.
        now: Unix seconds.
    """
    claims = AssertionClaims(
        sub=principal,
        aud=audience,
        iat=now,
        exp=now + LIFETIME_S,
        headers=bound(headers),
        key=record_key or "",
        digest=digest(value),
    )
    return jwt.encode(
        msgspec.to_builtins(claims), key, ALGORITHM, headers={"kid": kid, "typ": TYPE}
    ).encode()


def key_id(assertion: str) -> str:
    """The id of the key that an assertion names. Raises AssertionRefused."""
    if len(assertion) > LONGEST or not assertion.isascii():
        raise AssertionRefused("bad_assertion", f"it has over {LONGEST} characters, or others")
    try:
        header = jwt.get_unverified_header(assertion)
    except jwt.InvalidTokenError:
        raise AssertionRefused("bad_assertion", "it is no JSON Web Token") from None
    if header.get("typ") != TYPE or header.get("alg") != ALGORITHM:
        raise AssertionRefused("bad_assertion", f"its type is not {TYPE}, signed by {ALGORITHM}")
    return str(header.get("kid", ""))


def issued_at(assertion: str) -> float:
    """When an assertion says that it was made, in Unix seconds. Raises AssertionRefused."""
    try:
        payload = jwt.decode(assertion, options={"verify_signature": False})
        return msgspec.convert(payload, AssertionClaims).iat
    except (jwt.InvalidTokenError, msgspec.ValidationError):
        raise AssertionRefused("bad_assertion", "its claims are not those of a request") from None


def verify(
    assertion: str,
    known: VerificationKey,
    *,
    audience: str,
    record_key: str | None,
    value: bytes | None,
    headers: Any,
    moment: float,
) -> AssertionClaims:
    """The claims of a request's assertion.

    Args:
        assertion: The value of the header.
        known: The key that it names.
        audience: The agent's own address.
        record_key: Of the record.
        value: Of the record.
        headers: Of the record.
        moment: When the record was appended, in Unix seconds, or now where no broker says when.

    Raises:
        AssertionRefused: It was signed by another key, for another agent, another record, another
            time, or a principal that the key may not speak for.
    """
    try:
        # The times are held against the moment of the append, below.
        payload = jwt.decode(
            assertion,
            known.key,
            algorithms=[ALGORITHM],
            audience=audience,
            options={"verify_exp": False, "verify_iat": False, "verify_nbf": False},
        )
        claims = msgspec.convert(payload, AssertionClaims)
    except jwt.InvalidSignatureError:
        raise AssertionRefused("bad_signature", f"not by the key {known.jwk.kid!r}") from None
    except (jwt.InvalidAudienceError, jwt.MissingRequiredClaimError):
        raise AssertionRefused("wrong_audience", f"it is not for {audience}") from None
    except (jwt.InvalidTokenError, msgspec.ValidationError):
        raise AssertionRefused("bad_assertion", "its claims are not those of a request") from None
    if not claims.sub or not known.jwk.speaks_for(claims.sub):
        raise AssertionRefused("wrong_principal", f"the key {known.jwk.kid!r} speaks for others")
    _check_times(claims, moment)
    same = (
        claims.headers == bound(headers)
        and claims.key == (record_key or "")
        and claims.digest == digest(value)
    )
    if not same:
        raise AssertionRefused("altered", "key, headers or value are not those that were signed")
    return claims


def _check_times(claims: AssertionClaims, moment: float) -> None:
    if not claims.iat - LEEWAY_S <= moment <= claims.exp + LEEWAY_S:
        raise AssertionRefused(
            "expired_assertion", "the record was not appended in the time that was signed"
        )
    if claims.exp - claims.iat > LONGEST_S:
        raise AssertionRefused("expired_assertion", f"it is good for over {LONGEST_S:g} s")
