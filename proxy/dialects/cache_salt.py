"""The salt of an engine's prefix cache: what one version's weights computed, no other one reads.

An engine that swaps its weights may keep the keys and values of the old ones. Salted with the
version (`cache_salt`, a part of each cached block's name), they are not found any more, be the
cache reset or not. An agent's own salt is combined with ours, so that it neither reads what
others left nor chooses a version's salt; it sees neither of them again.
"""

from typing import Final

import msgspec
from msgspec import Raw

from odradek.proxy.dialects.dialect import field, fingerprint
from odradek.proxy.errors import BadRequest
from odradek.schemas.http.engine import CACHE_SALT

NAME: Final = CACHE_SALT
FIELD: Final = NAME.encode()
HIDDEN: Final = "the engine reported an error that is not shown, since it repeats the call's salt"

_str: Final = msgspec.json.Decoder(str | None)
_encode: Final = msgspec.json.Encoder().encode
_KEY: Final = _encode(NAME)


def taken(fields: dict[str, Raw]) -> str:
    """Take the agent's own salt out of a request: its digest, "" where there is none.

    Raises BadRequest.
    """
    if NAME not in fields:
        return ""
    own = field(fields, NAME, _str)
    del fields[NAME]
    if own == "":
        raise BadRequest(f"{NAME}: some text, or nothing at all", param=NAME)
    return "" if own is None else fingerprint(own.encode())


def of(version: int, own: str) -> str:
    """The salt of a version for who has that digest of an own one. No digest holds a full stop."""
    return f"{version}.{own}" if own else str(version)


def salted(body: bytes, version: int, own: str) -> bytes:
    """A request, a JSON object with members and without a salt, with one."""
    said = _encode(of(version, own))
    return b"".join((memoryview(body)[:-1], b",", _KEY, b":", said, b"}"))


def unsaid(error: str) -> str:
    """One line on an engine's error as an agent may see it."""
    return HIDDEN if NAME in error else error


def hidden(body: bytes) -> bytes:
    """An engine's error as an agent may see it: without what repeats the salt."""
    return _encode({"message": HIDDEN}) if FIELD in body else body
