"""Which policy version an engine serves, as far as the proxy knows: pure, no I/O, no clock.

It comes from three places: the log's newest Policy, which names the engines that have its weights;
the version spans of each reply; and the engine's answer when it is asked. What the engine says
holds until a newer Policy names the engine, or until the engine may have been started anew.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, Protocol

from msgspec import Struct

from odradek.schemas.events import VersionSpan
from odradek.schemas.http.weights import adapter_name


class ServedVersions(Protocol):
    """The policy in force, from the log."""

    @property
    def current(self) -> int | None:
        """Its version, None while unknown."""
        ...

    @property
    def engines(self) -> Mapping[str, int]:
        """By address, the version that each engine had then; empty where nobody says."""
        ...

    @property
    def adapter(self) -> str:
        """What the names of its adapters begin with; "" where its weights are whole."""
        ...


class NoPolicy:
    """Nobody follows a policy. Implements `ServedVersions`."""

    current: Final = None
    engines: Final[Mapping[str, int]] = MappingProxyType({})
    adapter: Final = ""


UNKNOWN: Final = NoPolicy()


class SentVersion(Struct, frozen=True, kw_only=True):
    """The state of an engine when a call was sent to it."""

    serving: "EngineVersion"
    version: int | None
    """Which version it served; None where nobody knows."""
    announced: int
    life: int
    salted: bool = True
    adapter: str = ""
    """The adapter that the call asks for, whose version is `version`; "" for the weights that are
    in force."""

    @property
    def salt(self) -> int | None:
        """The version that the call's salt stands for; None for a call without one."""
        return (self.version or 0) if self.salted else None

    @property
    def inferred(self) -> int | None:
        """The version of tokens for which the engine names none: the older of then and now."""
        now = self.serving.version
        return None if self.version is None or now is None else min(self.version, now)

    def spans(self, said: tuple[VersionSpan, ...], n: int) -> tuple[VersionSpan, ...]:
        """Which versions sampled the n tokens of a choice: what the engine said of them.

        An adapter does not change under a call, so all of its tokens are of the version that was
        asked for; what an engine says then is of the model beneath.
        """
        if not self.adapter or self.version is None:
            return said
        return (VersionSpan(self.version, 0, n),) if n else ()

    def heard(self, choices: Iterable[tuple[VersionSpan, ...]]) -> None:
        """The engine has said which versions sampled the reply, choice by choice."""
        if self.adapter:
            return
        last = [spans[-1].version for spans in choices if spans]
        if last:
            self.serving.heard(max(last), self)


class EngineVersion:
    """One engine's version.

    Args:
        url: Its address, as Policies may name it.
        log: What the log says.
    """

    def __init__(self, url: str, log: ServedVersions) -> None:
        self._url = url
        self._log = log
        self._word: int | None = None
        """The version that it said itself, last."""
        self._word_of = 0
        """The version that was announced by then."""
        self.life = 0
        """Counts the times at which it may have been started anew."""
        self.unsure = False
        """Whether it may have been started anew since it was heard last."""

    @property
    def version(self) -> int | None:
        """The version that it serves; None if unknown."""
        current = self._log.current
        if self._word is None:
            return self._log.engines.get(self._url, current)
        if self._word_of == (current or 0):
            return self._word
        return max(self._word, self._log.engines.get(self._url, self._word))

    @property
    def doubtful(self) -> bool:
        """Whether to ask for its version."""
        return self._log.current is not None and (self.unsure or self.lags)

    @property
    def lags(self) -> bool:
        """Whether it serves an older version than was announced."""
        current = self._log.current
        if current is None:
            return False
        if self._word is not None and self._word_of == current:
            return self._word < current
        return self._log.engines.get(self._url, current) < current

    @property
    def policy(self) -> str:
        """What the names of its adapters begin with; "" where it serves whole weights."""
        return self._log.adapter

    def sent(self) -> SentVersion:
        """The state now, as a call goes out.

        An engine without any adapter yet samples with the model itself, which is version 0.
        """
        version, policy = self.version, self.policy
        return SentVersion(
            serving=self,
            version=(version or 0) if policy else version,
            announced=self._log.current or 0,
            life=self.life,
            adapter=adapter_name(policy, version) if policy and version else "",
        )

    def heard(self, version: int, sent: SentVersion) -> None:
        """A reply to a call ended with tokens of a version.

        Replies come out of order. A reply of an older version counts in two cases only: its call
        was sent after a newer announcement, or its call was sent in the belief that the engine
        served a newer version. In the second case the engine is not what it was.
        """
        if sent.life != self.life:
            return
        newest = (self._word_of, -1 if self._word is None else self._word)
        if (sent.announced, version) > newest or version > newest[1]:
            self._word, self._word_of = version, max(sent.announced, self._word_of)
        elif sent.announced == self._word_of and version < (sent.version or 0):
            self._word = version

    def answered(self, version: int | None) -> None:
        """It has answered with its version; None if the answer has none."""
        self.unsure = False
        if version is not None:
            self._word, self._word_of = version, self._log.current or 0

    def lost(self) -> None:
        """It was away, so it may have been started anew, with other weights."""
        self._word = None
        self.life += 1
        self.unsure = True
