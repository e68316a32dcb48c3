"""Keys of producers: Ed25519 as JSON Web Keys (RFC 7517, RFC 8037).

The producer has its private key in a file. Hosts have the public keys of all producers, in a
folder or in one file. A key names the principals that it may speak for, so that a producer's key
is of no use to speak for others. A key has one algorithm, whatever a token says.
"""

import logging
import time
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from jwt.algorithms import OKPAlgorithm
from jwt.exceptions import InvalidKeyError

from odradek.infra.errors import ProjectError

logger = logging.getLogger("odradek")

ALGORITHM: Final = "EdDSA"
CURVE: Final = "Ed25519"
RELOAD_S: Final = 5.0
"""How often the files of keys are looked at again."""
WILD: Final = frozenset("*?[")


class JsonWebKey(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A key as its file holds it; `d` is there in private ones only."""

    kid: str
    x: str
    kty: str = ""
    crv: str = ""
    d: str = ""
    principals: tuple[str, ...] = ()
    """Whom it may speak for: names, or patterns as of file names."""
    samples: bool = False
    """Whether its requests may be samples of training tasks."""

    @property
    def own(self) -> str:
        """The principal of who holds it: the first that is no pattern; "" if all are."""
        return next((name for name in self.principals if not WILD & set(name)), "")

    def speaks_for(self, principal: str) -> bool:
        """Whether it may speak for a principal."""
        return any(fnmatchcase(principal, pattern) for pattern in self.principals)

    def public(self) -> "JsonWebKey":
        """The part that hosts get."""
        return msgspec.structs.replace(self, d="")


class _KeySet(msgspec.Struct):
    keys: list[JsonWebKey]


class VerificationKey(msgspec.Struct, frozen=True):
    """A public key that can be used."""

    jwk: JsonWebKey
    key: Ed25519PublicKey


def new_key(kid: str, principals: Iterable[str], *, samples: bool = False) -> JsonWebKey:
    """A fresh private key."""
    fields: Any = OKPAlgorithm.to_jwk(Ed25519PrivateKey.generate(), as_dict=True)
    return JsonWebKey(
        kid=kid,
        principals=tuple(principals),
        samples=samples,
        **{name: fields[name] for name in ("kty", "crv", "x", "d")},
    )


def read_private(path: Path) -> tuple[JsonWebKey, Ed25519PrivateKey]:
    """A producer's key. Raises ProjectError."""
    (jwk,) = _read(path)[:1] or [JsonWebKey(kid="", x="")]
    key = _usable(jwk, path)
    if not isinstance(key, Ed25519PrivateKey):
        raise ProjectError(f"{path} holds no private key: `odradek keys new` writes one")
    if not jwk.own:
        raise ProjectError(f"{path}: its key names no principal of its own, but only patterns")
    return jwk, key


class KeyRing:
    """The public keys of producers, by their ids.

    A key that is added to the folder, or taken away, is noticed within `RELOAD_S`: an id that is
    not there is looked for at once.

    Args:
        path: A folder of `*.json`, or a file with a key or a JWK Set.

    Raises:
        ProjectError: A file cannot be read, or a key is none that signs requests.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state = _state(path)
        self._keys = _load(path)
        self._looked_at = time.monotonic()

    def __iter__(self) -> Iterator[VerificationKey]:
        return iter(self._keys.values())

    def get(self, kid: str) -> VerificationKey | None:
        """A key by its id."""
        age = time.monotonic() - self._looked_at
        if age > RELOAD_S or (kid not in self._keys and age > RELOAD_S / 10):
            self._look()
        return self._keys.get(kid)

    def _look(self) -> None:
        """Read files again that have changed; where that fails, the keys stay as they are."""
        self._looked_at = time.monotonic()
        try:
            state = _state(self._path)
            if state != self._state:
                self._keys, self._state = _load(self._path), state
        except ProjectError as error:
            logger.warning("the keys of requests stay as they were: %s", error)


def _files(path: Path) -> list[Path]:
    return sorted(path.glob("*.json")) if path.is_dir() else [path]


def _state(path: Path) -> list[tuple[str, int, int]]:
    """What changes when a key is added, replaced or taken away."""
    try:
        stats = [(file.name, file.stat()) for file in _files(path)]
    except OSError as error:
        raise ProjectError(f"cannot read keys at {path}: {error.strerror}") from None
    return [(name, stat.st_mtime_ns, stat.st_size) for name, stat in stats]


def _load(path: Path) -> dict[str, VerificationKey]:
    keys: dict[str, VerificationKey] = {}
    for file in _files(path):
        for jwk in _read(file):
            key = _usable(jwk.public(), file)
            if jwk.kid in keys:
                raise ProjectError(f"{file}: the key id {jwk.kid!r} is there twice: rename one")
            if isinstance(key, Ed25519PublicKey):
                keys[jwk.kid] = VerificationKey(jwk.public(), key)
    return keys


def _read(path: Path) -> list[JsonWebKey]:
    try:
        value = path.read_bytes()
    except OSError as error:
        raise ProjectError(f"cannot read the key file {path}: {error.strerror}") from None
    try:
        return msgspec.json.decode(value, type=_KeySet).keys
    except msgspec.DecodeError:
        pass
    try:
        return [msgspec.json.decode(value, type=JsonWebKey)]
    except msgspec.DecodeError:
        raise ProjectError(
            f"{path} is no JSON Web Key with kid and x: `odradek keys new` writes one"
        ) from None


def _usable(jwk: JsonWebKey, path: Path) -> Any:
    """The key of a JSON Web Key. Raises ProjectError for another kind than Ed25519."""
    if (jwk.kty, jwk.crv) != ("OKP", CURVE) or not jwk.kid:
        raise ProjectError(f"{path}: the key {jwk.kid!r} is no {CURVE} key (kty OKP) with a kid")
    fields = {"kty": jwk.kty, "crv": jwk.crv, "x": jwk.x}
    try:
        return OKPAlgorithm.from_jwk(fields | ({"d": jwk.d} if jwk.d else {}))
    except (InvalidKeyError, ValueError):  # no base64, or of another length
        raise ProjectError(f"{path}: the key {jwk.kid!r} cannot be read") from None
