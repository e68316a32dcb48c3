"""One engine of several: its health, its version, and whether its calls are salted."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import msgspec
from circuitbreaker import CircuitBreaker

from odradek.proxy.dialects import cache_salt as salts
from odradek.proxy.engines.client import BUSY, Engine, EngineResponse
from odradek.proxy.engines.logprobs_probe import LogprobsProbe
from odradek.proxy.engines.versions import UNKNOWN, EngineVersion, ServedVersions
from odradek.proxy.errors import EngineError
from odradek.proxy.wire.version_spans import newest_adapter, version_of
from odradek.schemas.http.engine import HEALTH, MODELS, VERSION

FAILURES: Final = 5
"""So many connections in a row must fail before an engine is left alone."""
OPEN_S: Final = 5
"""How long it is left alone then."""
ASK_AGAIN_S: Final = 0.25
"""How often at most an engine is asked what it serves, however many calls want to know."""
HEALTH_TIMEOUT_S: Final = 2.0
UNKNOWN_MODEL: Final = frozenset({400, 404})
"""Statuses of an engine that has no adapter of the name that a call gives."""

log = logging.getLogger("odradek.proxy")


class PoolEngine:
    """An engine of the pool, and what we know of its state."""

    def __init__(
        self,
        engine: Engine,
        versions: ServedVersions = UNKNOWN,
        proving: LogprobsProbe | None = None,
    ) -> None:
        self.engine = engine
        self.proving = proving
        self.serving = EngineVersion(engine.url, versions)
        self.healthy = True
        self.takes_salt = True
        self.behind_since: float | None = None
        """Since when it has been known to serve an older version than was announced."""
        self._asked_at = 0.0
        self._asked_life = -1
        self._asking = asyncio.Lock()
        self._breaker = CircuitBreaker(
            failure_threshold=FAILURES,
            recovery_timeout=OPEN_S,
            expected_exception=EngineError,
            name=engine.url,
        )

    @property
    def available(self) -> bool:
        """Whether it is worth a call."""
        return self.healthy and not self._breaker.opened

    async def ask(
        self, path: str, body: bytes, traceparent: str | None, salt: str | None
    ) -> EngineResponse:
        """Post to one of its routes, salted for the version that it serves; None for no salt."""
        if salt is None:
            return await self.engine.ask(path, body, traceparent)
        sent = self.serving.sent()
        if self.takes_salt:
            salted = salts.salted(body, sent.version or 0, salt)
            answer = await self.engine.ask(path, salted, traceparent, lora=sent.adapter)
            answer.sent = sent
            if answer.status < 400 or answer.status >= 500 or answer.status in BUSY:
                return answer
            if salts.FIELD not in await answer.read():
                return answer
            await answer.close()
        answer = await self.engine.ask(path, body, traceparent, lora=sent.adapter)
        answer.sent = msgspec.structs.replace(sent, salted=False)
        # An error may name the field for other reasons, such as one that repeats the request. Only
        # an engine that takes the same call without it does not take the field.
        if self.takes_salt and answer.status < 400:
            self.takes_salt = False
            log.warning("engine %s takes no %s: its calls go without", self.engine.url, salts.NAME)
        return answer

    async def lacks_adapter(self, answer: EngineResponse) -> bool:
        """Whether it has refused a call because it lacks the adapter that the call asked for.

        Then it was started anew, or has forgotten it: it is asked what it has before the next call.
        """
        name = answer.sent.adapter if answer.sent is not None else ""
        if not name or answer.status not in UNKNOWN_MODEL:
            return False
        if name.encode() not in await answer.read():
            return False
        self.serving.lost()
        return True

    def failed(self, error: EngineError) -> None:
        """A connection to it failed."""
        self.takes_salt = True  # whatever answers there next may be another
        self.engine.forget()
        if self.proving is not None:
            self.proving.lost()
        self.serving.lost()
        with suppress(EngineError), self._breaker:
            raise error

    def answered(self) -> None:
        """It answers, be it with an error: the engine is there."""
        self._breaker.reset()

    @property
    def settled(self) -> bool:
        """Whether its version is known and up to date."""
        return self.behind_since is None and not self.serving.doubtful

    async def settle(self, clock: Callable[[], float]) -> None:
        """Ask an engine for its version if it may have restarted, or if it lags."""
        if self.serving.doubtful:
            async with self._asking:  # a question that is under way is everybody's
                life, again = self.serving.life, self._asked_at + ASK_AGAIN_S
                if self.serving.doubtful and (life != self._asked_life or clock() >= again):
                    await self._ask_version()
                    self._asked_life, self._asked_at = life, clock()
        self._note_lag(clock())

    async def _ask_version(self) -> None:
        policy = self.serving.policy
        path = MODELS.path if policy else VERSION.path
        with suppress(EngineError):  # who calls it next will meet the same
            status, _, body = await self.engine.get(path, timeout_s=HEALTH_TIMEOUT_S)
            version = newest_adapter(body, policy) if policy else version_of(body)
            self.serving.answered(version if status == 200 else None)

    def _note_lag(self, now: float) -> None:
        if self.serving.lags is (self.behind_since is not None):
            return
        url, version = self.engine.url, self.serving.version
        if self.behind_since is None:
            self.behind_since = now
            log.warning("engine %s serves version %s, a newer one is announced", url, version)
        else:
            self.behind_since = None
            log.warning("engine %s serves the announced version, %s", url, version)

    async def ask_health(self) -> None:
        """Ask how it is."""
        try:
            status, _, _ = await self.engine.get(HEALTH.path, timeout_s=HEALTH_TIMEOUT_S)
            healthy = status < 400
        except EngineError:
            healthy = False
        if healthy is not self.healthy:
            self.healthy = healthy
            self.serving.lost()
            state = "is healthy again" if healthy else "is not healthy: its episodes move"
            log.warning("engine %s %s", self.engine.url, state)
