"""Signatures of cards: JSON Web Signatures over the card's canonical JSON.

A2A section 8.4: RFC 7515 over RFC 8785. The SDK makes and verifies them. Here are the keys: JSON
Web Keys (RFC 7517) of type Ed25519 or P-256, each with an id. A key's algorithm is its own,
whatever a signature says, and its `principals`, where it names any, are the agents whose cards it
may sign.
"""

import base64
import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, Self

import msgspec
from a2a.types import AgentCard, AgentCardSignature
from a2a.utils.signing import (
    ProtectedHeader,
    SignatureVerificationError,
    create_agent_card_signer,
    create_signature_verifier,
)
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from odradek.infra.errors import ProjectError

ALGORITHMS: Final = {("OKP", "Ed25519"): "EdDSA", ("EC", "P-256"): "ES256"}
"""By a key's type and curve."""
TYPE: Final = "JOSE"


class CardStanding(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a card's signatures."""

    signed: bool
    """Whether it carries any."""
    kid: str = ""
    """The id of the key that signed it; "": none that is known."""
    problem: str = ""
    """Why no signature counts."""

    def __str__(self) -> str:
        """In a few words."""
        if not self.signed:
            return "unsigned"
        return f"by {self.kid}" if self.kid else f"WRONG: {self.problem}"


class CardKey(msgspec.Struct, frozen=True):
    """A key that can be used."""

    kid: str
    key: PyJWK
    private: bool
    principals: tuple[str, ...] = ()

    def may_sign_for(self, agent: str) -> bool:
        """Whether it may sign the card of an agent."""
        return not self.principals or any(fnmatchcase(agent, name) for name in self.principals)


class CardSigner:
    """Signs cards with one key.

    Args:
        key: A private one.
    """

    def __init__(self, key: CardKey) -> None:
        self._key = key
        header = ProtectedHeader(kid=key.kid, alg=key.key.algorithm_name, jku=None, typ=TYPE)
        known: Any = {name: value for name, value in header.items() if value is not None}
        self._sign = create_agent_card_signer(key.key.key, known)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """With the private key in a file. Raises ProjectError."""
        for key in read_keys(path).values():
            if key.private:
                return cls(key)
        raise ProjectError(f"{path} holds no private key: give the file that `d` is in")

    def signed(self, card: AgentCard) -> AgentCard:
        """A copy of a card whose only signature is ours."""
        copy = AgentCard()
        copy.CopyFrom(card)
        del copy.signatures[:]
        return self._sign(copy)


def read_keys(path: Path) -> dict[str, CardKey]:
    """The keys of a file, or of the `*.json` of a folder, by their ids. Raises ProjectError."""
    try:
        files = sorted(path.glob("*.json")) if path.is_dir() else [path]
        texts = {file: file.read_bytes() for file in files}
    except OSError as error:
        raise ProjectError(f"cannot read keys of cards at {path}: {error.strerror}") from None
    keys: dict[str, CardKey] = {}
    for file, text in texts.items():
        for fields in _entries(file, text):
            key = _usable(file, fields)
            if key.kid in keys:
                raise ProjectError(f"{file}: the key id {key.kid!r} is there twice: rename one")
            keys[key.kid] = key
    return keys


def standing(agent: str, card: AgentCard, keys: Mapping[str, CardKey]) -> CardStanding:
    """Whose signature a card carries.

    Args:
        agent: Whose card it is.
        card: As it was published.
        keys: Public keys, by their ids.
    """
    if not card.signatures:
        return CardStanding(signed=False)
    problems = []
    for signature in card.signatures:
        kid = _key_id(signature)
        key = keys.get(kid)
        if key is None:
            problems.append(f"there is no key {kid[:64]!r}")
        elif not key.may_sign_for(agent):
            problems.append(f"the key {kid!r} signs for other agents")
        elif not _verifies(card, signature, key):
            problems.append(f"not what {kid!r} signed")
        else:
            return CardStanding(signed=True, kid=kid)
    return CardStanding(signed=True, problem="; ".join(problems))


def _verifies(card: AgentCard, signature: AgentCardSignature, key: CardKey) -> bool:
    alone = AgentCard()
    alone.CopyFrom(card)
    del alone.signatures[:]
    alone.signatures.append(signature)
    verify = create_signature_verifier(lambda _kid, _jku: key.key, [key.key.algorithm_name])
    try:
        verify(alone)
    except SignatureVerificationError:
        return False
    return True


def _key_id(signature: AgentCardSignature) -> str:
    """The id of the key that a signature names; "" if none can be read."""
    text = signature.protected
    try:
        header = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, RecursionError):
        return ""
    return str(header.get("kid", "")) if isinstance(header, dict) else ""


def _entries(file: Path, text: bytes) -> list[Any]:
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        raise ProjectError(f"{file} is no JSON Web Key: `odradek keys new` writes one") from None
    entries: list[Any] = whole.get("keys", [whole]) if isinstance(whole, dict) else [whole]
    return entries


def _usable(file: Path, fields: Any) -> CardKey:
    fields = fields if isinstance(fields, dict) else {}
    kid, principals = str(fields.get("kid") or ""), fields.get("principals") or []
    kind = (str(fields.get("kty")), str(fields.get("crv")))
    if kind not in ALGORITHMS or not kid or not isinstance(principals, list):
        raise ProjectError(
            f"{file}: a card's key is a JSON Web Key with a kid, of Ed25519 (kty OKP) or P-256 "
            f"(kty EC); {kid or 'this one'!r} is not"
        )
    parts = {name: fields[name] for name in ("kty", "crv", "x", "y", "d") if name in fields}
    try:
        key = PyJWK(parts, ALGORITHMS[kind])
    except (PyJWTError, ValueError):  # no base64, or no point of the curve
        raise ProjectError(f"{file}: the key {kid!r} cannot be read") from None
    return CardKey(kid, key, "d" in fields, tuple(str(name) for name in principals))
