"""A producer's key pair as files: the private key for itself, the public one for all hosts."""

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from odradek.agents.trust.keys import JsonWebKey, new_key

PUBLIC: Final = "public"
"""The folder, below that of private keys, which hosts get."""


def write_pair(
    folder: Path, name: str, principals: Iterable[str] = (), *, samples: bool = False
) -> tuple[Path, Path]:
    """Make the key pair of a producer; return the private key's file and the folder for hosts.

    A former private key of the producer is replaced. Its public keys stay, so that what it signed
    can still be verified.
    """
    kid = f"{name}-{time.strftime('%Y%m%d%H%M%S', time.gmtime())}"
    key = new_key(kid, (name, *principals), samples=samples)
    private, public = folder / f"{name}.json", folder / PUBLIC
    public.mkdir(parents=True, exist_ok=True)
    _write(public / f"{kid}.json", key.public(), 0o644)
    _write(private, key, 0o600)
    return private, public


def _write(path: Path, key: JsonWebKey, mode: int) -> None:
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(key)) + b"\n")
    temporary.replace(path)
