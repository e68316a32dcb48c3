"""Signatures of posts, as Standard Webhooks has them (https://www.standardwebhooks.com). Pure.

`webhook-signature` holds `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`. Each webhook
has a secret of its own, made from the dispatcher's key and the webhook's URL: a receiver that knows
its secret can sign for nobody else. While a key is replaced, there is a signature by each.
"""

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import Final

ID: Final = "webhook-id"
TIMESTAMP: Final = "webhook-timestamp"
SIGNATURE: Final = "webhook-signature"
TOLERANCE_S: Final = 300.0
"""How far a receiver's clock and ours may be apart."""
PREFIX: Final = "whsec_"


def secret_of(key: str, url: str) -> str:
    """The secret of a webhook, as its receiver is given it: `whsec_` and base64."""
    made = hmac.digest(key.encode(), f"webhook:{url}".encode(), "sha256")
    return PREFIX + base64.b64encode(made).decode()


def name_of(url: str) -> str:
    """A short name of a webhook that quotes nothing of its URL."""
    return hashlib.sha256(url.encode()).hexdigest()[:16]


def signature_headers(
    body: bytes, *, delivery_id: str, now: float, secrets: Iterable[str]
) -> dict[str, str]:
    """The headers that a post carries."""
    stamp = str(int(now))
    signatures = (_signature(secret, delivery_id, stamp, body) for secret in secrets)
    return {ID: delivery_id, TIMESTAMP: stamp, SIGNATURE: " ".join(signatures)}


def is_signed(
    body: bytes,
    headers: Mapping[str, str],
    secret: str,
    *,
    now: float,
    tolerance_s: float = TOLERANCE_S,
) -> bool:
    """Whether a post was signed with a secret, lately: for receivers.

    Args:
        body: As it came, byte for byte.
        headers: Of the post; their names in lower case.
        secret: The receiver's, `whsec_…`.
        now: Unix seconds.
        tolerance_s: How old a post may be.
    """
    stamp = headers.get(TIMESTAMP, "")
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) < 13):
        return False
    if abs(now - int(stamp)) > tolerance_s:
        return False
    expected = _signature(secret, headers.get(ID, ""), stamp, body).encode()
    listed = headers.get(SIGNATURE, "").encode().split(b" ")
    return any(hmac.compare_digest(expected, each) for each in listed)


def _signature(secret: str, delivery_id: str, stamp: str, body: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(PREFIX))
    signed = hmac.digest(key, f"{delivery_id}.{stamp}.".encode() + body, "sha256")
    return "v1," + base64.b64encode(signed).decode()
