"""The salt of an engine's prefix cache: no version reads what another version's weights computed.

An engine that swaps its weights may keep the keys and values of the old ones. The version is part
of the salt (`cache_salt`), and the salt is part of each cached block's name. So the new weights do
not read the old blocks, whether the cache was reset or not. An agent's own salt is combined with
ours: the agent neither reads what others left nor chooses a version's salt. It sees neither of them
again.
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


def take_own(fields: dict[str, Raw]) -> str:
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
    """A version's salt, for an agent whose own salt has this digest. A digest has no full stop."""
    return f"{version}.{own}" if own else str(version)


def salted(body: bytes, version: int, own: str) -> bytes:
    """The request with a salt; before, it is a JSON object with members and without a salt."""
    salt = _encode(of(version, own))
    return b"".join((memoryview(body)[:-1], b",", _KEY, b":", salt, b"}"))


def redacted(error: str) -> str:
    """One line on an engine's error as an agent may see it."""
    return HIDDEN if NAME in error else error


def redacted_body(body: bytes) -> bytes:
    """An engine's error as an agent may see it: without what repeats the salt."""
    return _encode({"message": HIDDEN}) if FIELD in body else body
