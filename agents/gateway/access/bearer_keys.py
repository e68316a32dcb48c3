"""Bearer keys of the gateway's clients: a file of principals and of the hashes of their keys."""

import hashlib
import hmac
import os
import secrets
import time
from pathlib import Path
from typing import Final

import msgspec

from odradek.infra.errors import ProjectError

MARK: Final = "odk_"
"""How keys begin, so that they are told from tokens, and found by scanners of secrets."""
RELOAD_S: Final = 5.0
"""How often the file is looked at again."""


class HashedKey(msgspec.Struct, frozen=True):
    """A key as it is kept.

    Its 256 bits are random, so a fast hash is as good as a slow one: nobody can guess them.
    """

    principal: str
    sha256: str
    """Of the key, in hexadecimal."""


class _KeyFile(msgspec.Struct):
    keys: list[HashedKey] = []


class BearerKeys:
    """The keys in a file; one that is added or taken away is noticed within `RELOAD_S`.

    Args:
        path: The file, as `odradek keys bearer` writes it.

    Raises:
        ProjectError: It cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state = _state(path)
        self._keys = _read(path).keys
        self._looked_at = time.monotonic()

    def principal(self, key: str) -> str | None:
        """Whose key it is; None if nobody's. Every key is compared, each in constant time."""
        self._look()
        digest = _hashed(key)
        found = None
        for kept in self._keys:
            if hmac.compare_digest(kept.sha256, digest):
                found = kept.principal
        return found

    def _look(self) -> None:
        if time.monotonic() - self._looked_at < RELOAD_S:
            return
        self._looked_at = time.monotonic()
        try:
            state = _state(self._path)
            if state != self._state:
                self._keys, self._state = _read(self._path).keys, state
        except ProjectError:
            # Whoever takes the file away lets nobody in.
            self._keys, self._state = [], (0, 0)


def add_key(path: Path, principal: str) -> str:
    """Add a fresh key of a principal to a file, and return it: it is not kept anywhere.

    Raises ProjectError where the file is another one.
    """
    kept = _read(path).keys if path.exists() else []
    key = MARK + secrets.token_urlsafe(32)
    kept.append(HashedKey(principal, _hashed(key)))
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(_KeyFile(kept))) + b"\n")
    temporary.replace(path)
    return key


def _hashed(key: str) -> str:
    return hashlib.sha256(key.encode(errors="replace")).hexdigest()


def _state(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError as error:
        raise ProjectError(f"cannot read bearer keys at {path}: {error.strerror}") from None
    return stat.st_mtime_ns, stat.st_size


def _read(path: Path) -> _KeyFile:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_KeyFile)
    except OSError as error:
        raise ProjectError(f"cannot read bearer keys at {path}: {error.strerror}") from None
    except msgspec.DecodeError:
        raise ProjectError(
            f"{path} is no file of bearer keys: `odradek keys bearer` writes one"
        ) from None
