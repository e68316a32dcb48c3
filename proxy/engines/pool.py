"""Several engines as one: which of them gets a call, and what happens when it takes none.

An episode keeps to one engine, so that its prefix stays in that engine's cache. Rendezvous hashing
(Thaler and Ravishankar 1998) gives each episode an order of all engines. An engine that comes or
goes moves only its own episodes. A call goes to another engine only while its agent has seen
nothing of an answer.
"""

import asyncio
import hashlib
import logging
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from typing import Final

from odradek.proxy.dialects.model_routes import routes
from odradek.proxy.engines.client import BUSY, Engine, EngineAttempt, EngineResponse
from odradek.proxy.engines.logprobs_probe import LogprobsProbe
from odradek.proxy.engines.member import PoolEngine
from odradek.proxy.engines.versions import UNKNOWN, ServedVersions
from odradek.proxy.errors import (
    EngineBroke,
    EngineError,
    EngineUnreachable,
    ProxyMisconfigured,
)
from odradek.proxy.settings import ProxySettings

CONNECT_S: Final = 5.0
"""How long a connection to an engine may take."""
HEALTH_S: Final = 5.0
"""How often each of several engines is asked for its health."""
MAX_BROKEN: Final = 2
"""Engines that one call may break: it may be the call that breaks them."""
PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 1.0

log = logging.getLogger("odradek.proxy")


def ranked(urls: Iterable[str], key: str) -> list[str]:
    """Engines in this key's order of preference: the same in every replica and after a restart."""
    return sorted(urls, key=lambda url: hashlib.sha256(f"{url} {key}".encode()).digest())


def others(
    settings: ProxySettings, clock: Callable[[], float], *, proves: bool = False
) -> "dict[str, Pool]":
    """The pools of models that have engines of their own, by the agents' name for the model.

    Engines whose replies are trained on have to prove what their log probabilities are of, too.
    Raises ProxyMisconfigured.
    """
    pools = {}
    for name, route in routes(settings.models, settings.policy).items():
        key = os.environ.get(route.key_env, "") if route.key_env else ""
        if route.key_env and not key:
            raise ProxyMisconfigured(
                f"models.{name}: the variable {route.key_env}, which is to hold its key, is not set"
            )
        if route.engine:
            pools[name] = Pool.at(
                route.engine.split(","),
                key,
                settings,
                UNKNOWN,
                clock,
                proves=proves and route.trained,
                model=route.model,
            )
    return pools


class Pool:
    """Sends requests to one of several engines. Its errors are those of `Engine`.

    Args:
        engines: At least one.
        clock: Monotonic seconds.
        versions: What the log says of the policy that they serve.
        patience_s: How long a call waits for an engine that takes it, while all are busy (429,
            503: weights are being swapped) or away (they are being restarted).
        health_s: How often each of several engines is asked how it is.
        proves: Whether engines are asked what their log probabilities are of; those of the settings
            are also asked which kind of engine they are.
        model: The model that they are asked about; "" for the first.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        clock: Callable[[], float],
        *,
        versions: ServedVersions = UNKNOWN,
        patience_s: float = 0.0,
        health_s: float = 5.0,
        proves: bool = False,
        model: str = "",
    ) -> None:
        self.moved = 0
        """Calls that another engine took than the first that they were sent to."""
        self._members = {
            engine.url: PoolEngine(
                engine, versions, LogprobsProbe(engine, model) if proves else None
            )
            for engine in engines
        }
        self._only = list(self._members.values()) if len(self._members) == 1 else None
        self._clock = clock
        self._patience_s = patience_s
        self._health_s = health_s
        self._checks: list[asyncio.Task[None]] = []

    @classmethod
    def of(
        cls,
        settings: ProxySettings,
        versions: ServedVersions,
        clock: Callable[[], float],
        *,
        proves: bool = False,
    ) -> "Pool":
        """The engines that the settings name, and no others: no request chooses an address."""
        key = settings.engine_key.get_secret_value()
        return cls.at(settings.engine_urls, key, settings, versions, clock, proves=proves)

    @classmethod
    def at(
        cls,
        urls: Iterable[str],
        key: str,
        settings: ProxySettings,
        versions: ServedVersions,
        clock: Callable[[], float],
        *,
        proves: bool = False,
        model: str = "",
    ) -> "Pool":
        """Engines at these addresses, which take this key."""
        engines = [
            Engine(
                url,
                key=key,
                connect_s=CONNECT_S,
                max_bytes=settings.max_reply_bytes,
                recognizes=proves,
            )
            for url in urls
        ]
        return cls(
            engines,
            clock,
            versions=versions,
            patience_s=settings.engine_wait_s,
            health_s=HEALTH_S,
            proves=proves,
            model=model,
        )

    async def start(self) -> None:
        """Open the connections' pools, and watch over several engines."""
        for member in self._members.values():
            await member.engine.start()
        if len(self._members) > 1:
            self._checks = [asyncio.create_task(self._watch(m)) for m in self._members.values()]

    async def aclose(self) -> None:
        """Close them."""
        for check in self._checks:
            check.cancel()
        await asyncio.gather(*self._checks, return_exceptions=True)
        for member in self._members.values():
            await member.engine.aclose()

    def __len__(self) -> int:
        return len(self._members)

    @property
    def up(self) -> int:
        """Engines that are worth a call."""
        return sum(member.available for member in self._members.values())

    @property
    def lives(self) -> int:
        """Counts the times at which one of them may have been started anew."""
        return sum(member.serving.life for member in self._members.values())

    @property
    def proved(self) -> bool:
        """Whether it is known what all engines' log probabilities are of, or nobody asks."""
        members = self._members.values()
        return all(member.proving is None or member.proving.mode for member in members)

    async def prove(self) -> list[str]:
        """Faults of the engines' log probabilities, if they are probed at all."""
        members = self._members.values()
        probes = [member.proving for member in members if member.proving and member.healthy]
        await asyncio.gather(*(probe.prove() for probe in probes))
        return [probe.wrong for probe in probes if probe.wrong]

    def candidates(self, episode: str) -> list[PoolEngine]:
        """The engines that are worth a call, in the episode's order; all of them if none is.

        Engines that serve an older version than was announced come last.
        """
        if self._only is not None:
            return self._only
        order = [self._members[url] for url in ranked(self._members, episode)]
        worth = [member for member in order if member.available] or order
        return sorted(worth, key=lambda member: member.serving.lags)

    async def _settled(self, episode: str) -> list[PoolEngine]:
        """The same; the first was asked for its version, if that was in doubt."""
        while True:
            candidates = self.candidates(episode)
            lagged = candidates[0].serving.lags
            await candidates[0].settle(self._clock)
            if candidates[0].serving.lags is lagged:
                return candidates

    def _is_too_old(self, member: PoolEngine, failed: Collection[PoolEngine]) -> bool:
        """Whether a call waits, rather than go to an engine that serves an older version.

        It waits while another engine has the newest version and has not `failed` the call. If no
        such engine is left, it waits for a while: an engine that comes back is loaded by its host,
        or by the trainer. After that, old weights are better than none: each token is recorded with
        its version.
        """
        if not member.serving.lags:
            return False
        for other in self._members.values():
            if other.available and not other.serving.lags and other not in failed:
                return True
        since = member.behind_since
        return since is not None and self._clock() - since < self._patience_s

    async def ask(
        self,
        path: str,
        body: bytes,
        traceparent: str | None,
        *,
        episode: str = "",
        salt: str | None = None,
        tried: Collection[str] = (),
        attempt: EngineAttempt | None = None,
    ) -> EngineResponse:
        """Post to a route of the episode's engine, or of the next that takes it.

        It returns once the answer's head is there. From then on no other engine is asked: the
        agent may have seen the beginning. The caller closes the answer.

        Args:
            path: The route.
            body: A JSON object.
            traceparent: The one of the call's span.
            episode: Whose call it is.
            salt: For a call that samples, the digest of the agent's own salt, or "".
            tried: Engines to be asked only if there is no other.
            attempt: Where we note how far the call has come.
        """
        attempt = attempt or EngineAttempt()
        end = self._clock() + self._patience_s
        pause = PAUSE_S
        broken: list[PoolEngine] = []
        first = None
        while True:
            over = self._clock() >= end
            candidates = eligible = self._only or await self._settled(episode)
            failed: list[PoolEngine] = []
            if tried or broken:
                eligible = [
                    member for member in eligible if member.engine.url not in tried
                ] or eligible
                candidates = [member for member in eligible if member not in broken] or eligible
                every = self._members.items()
                failed = [member for url, member in every if member in broken or url in tried]
            for member in candidates:
                last = over and member is candidates[-1]
                if not member.settled:
                    await member.settle(self._clock)
                    if not over and self._is_too_old(member, failed):
                        continue
                first = first or member
                attempt.begins(member.engine.connect_s)
                try:
                    answer = await member.ask(path, body, traceparent, salt)
                except (EngineUnreachable, EngineBroke) as error:
                    member.failed(error)
                    failed.append(member)
                    # Unreachable: it never had the call. Broke: it may have sampled, so not there
                    # again, and not on many others.
                    if isinstance(error, EngineBroke):
                        broken.append(member)
                    if last or len(broken) >= min(MAX_BROKEN, len(eligible)):
                        raise
                    continue
                finally:
                    attempt.since = None
                member.answered()
                if not last and (answer.status in BUSY or await member.lacks_adapter(answer)):
                    async with answer:
                        continue
                self.moved += member is not first or bool(tried)
                answer.engine = member.engine.url
                answer.proving = member.proving
                return answer
            await asyncio.sleep(min(pause, max(0.0, end - self._clock())))
            pause = min(pause * 2, LONGEST_PAUSE_S)

    def has_other(self, tried: Collection[str]) -> bool:
        """Whether an engine that is not `tried` is worth a call."""
        return any(member.available for url, member in self._members.items() if url not in tried)

    async def get(self, path: str, *, timeout_s: float = 10.0) -> tuple[int, dict[str, str], bytes]:
        """Status, headers for the agent, and body of an address of an engine that answers."""
        candidates = self.candidates("")
        for member in candidates[:-1]:
            with suppress(EngineError):
                return await member.engine.get(path, timeout_s=timeout_s)
        return await candidates[-1].engine.get(path, timeout_s=timeout_s)

    async def _watch(self, member: PoolEngine) -> None:
        while True:
            await member.ask_health()
            await member.settle(self._clock)
            await asyncio.sleep(self._health_s)
