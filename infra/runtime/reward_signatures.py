"""Signed rewards: a judge's name in a reward is only a claim, its signature is proof.

HMAC-SHA256 (RFC 2104) over the bytes of the record's value, which name episode, component, value
and source; in the header `odradek-signature`, in hexadecimal. The judge has its key, the intake
has the keys of all judges: whoever can write `rl.rewards.v1` but has no key can judge nothing that
a signed source judges.
"""

import hmac
from fnmatch import fnmatchcase
from typing import Any, Final

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from odradek.infra.errors import ProjectError
from odradek.infra.runtime.settings import CheckedSettings
from odradek.schemas.codec import Headers, header

HEADER: Final = "odradek-signature"
PERSON: Final = "person/"
"""Begins the source of a person's rewards. They count with a good signature only, always: nobody
speaks for a person by writing a name."""
SHORTEST_KEY: Final = 32


class JudgeSettings(CheckedSettings, BaseSettings):
    """Keys of judges whose rewards are signed."""

    model_config = SettingsConfigDict(
        env_prefix="ODRADEK_JUDGE_",
        env_ignore_empty=True,
        frozen=True,
        use_attribute_docstrings=True,
    )

    key: SecretStr = SecretStr("")
    """Key with which a judge (reward service, agent host, `publish_reward`) signs its rewards: 32
    characters or more. Empty: it signs nothing."""
    keys: dict[str, SecretStr] = Field(default={})
    """At the intake: patterns of sources and the key of each, such as {"/reward/brief": "…"}.
    Rewards of these sources count only with a good signature, and so do those of every `person/…`,
    with a key here or without."""

    def checked(self) -> "JudgeSettings":
        """Itself. Raises ProjectError for a key that is too short."""
        own, *others = (key.get_secret_value() for key in (self.key, *self.every()))
        if any(0 < len(key) < SHORTEST_KEY for key in (own, *others)) or "" in others:
            raise ProjectError(f"a key in ODRADEK_JUDGE_* has under {SHORTEST_KEY} characters")
        return self

    def every(self) -> list[SecretStr]:
        """The keys of all judges."""
        return list(self.keys.values())


def sign(value: bytes, key: str) -> bytes:
    """The signature of a record's value."""
    return hmac.digest(key.encode(), value, "sha256").hex().encode()


def signed(value: bytes, headers: Headers, settings: JudgeSettings | None = None) -> Headers:
    """Headers with the signature, where this process has a key."""
    key = (settings or JudgeSettings()).checked().key.get_secret_value()
    return (*headers, (HEADER, sign(value, key))) if key else headers


class Verifier:
    """Holds rewards against the keys of their sources.

    Args:
        keys: Patterns (as of file names) of sources, and the key of each.
    """

    def __init__(self, keys: dict[str, str] | None = None) -> None:
        self._keys = dict(keys or {})

    @classmethod
    def of(cls, settings: JudgeSettings) -> "Verifier":
        """With the keys of settings. Raises ProjectError."""
        keys = settings.checked().keys
        return cls({pattern: key.get_secret_value() for pattern, key in keys.items()})

    def fault(self, source: str, value: bytes | None, headers: Any) -> str:
        """Why a reward does not count: `unsigned`, `bad_signature`, or "" if it does."""
        keys = [key for pattern, key in self._keys.items() if fnmatchcase(source, pattern)]
        if not keys and not source.startswith(PERSON):
            return ""
        signature = header(headers, HEADER)
        if not signature:
            return "unsigned"
        good = (hmac.compare_digest(sign(value or b"", key), signature.encode()) for key in keys)
        return "" if any(good) else "bad_signature"
