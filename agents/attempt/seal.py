"""Ending an episode at the proxy, with the host's credential."""

import asyncio
import time
from typing import Final, Protocol

import aiohttp
import msgspec

from odradek.agents.attempt.attempt import Ending
from odradek.agents.errors import SealRefused, SealUnavailable
from odradek.infra.runtime.episode_tokens import Claims, mint
from odradek.schemas.http.seal import SEAL, SealReply, SealRequest

LIFETIME_S: Final = 3600.0
FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 1.0
HOPELESS: Final = frozenset({400, 401, 403, 404, 405, 422})
"""Answers that asking again would not change."""


class Sealer(Protocol):
    """Ends episodes."""

    async def seal(self, episode_id: str, verdict: Ending, *, wait_s: float) -> SealReply:
        """Return once EpisodeSealed is in the log. Raises SealError."""
        ...

    async def aclose(self) -> None:
        """Let go."""
        ...


class ProxySealer:
    """Ends episodes at the proxy, over one HTTP session for all of them."""

    def __init__(self, url: str, keys: list[str], *, agent: str) -> None:
        self._url = url.rstrip("/")
        self._keys = keys
        self._agent = agent
        self._token = ""
        self._token_ends = 0.0
        self._session: aiohttp.ClientSession | None = None

    async def seal(self, episode_id: str, verdict: Ending, *, wait_s: float) -> SealReply:
        """See `Sealer`. Sealing again changes nothing, so every doubt is a reason to ask again."""
        ends = time.monotonic() + wait_s
        pause = FIRST_PAUSE_S
        while True:
            remaining_s = ends - time.monotonic()
            if remaining_s <= 0:
                raise SealUnavailable(f"the proxy did not seal {episode_id} in {wait_s:g} s")
            try:
                return await self._ask(episode_id, verdict, remaining_s)
            except (aiohttp.ClientError, TimeoutError, SealUnavailable):
                await asyncio.sleep(min(pause, max(remaining_s, 0)))
                pause = min(pause * 2, LONGEST_PAUSE_S)

    async def _ask(self, episode_id: str, verdict: Ending, wait_s: float) -> SealReply:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=256, keepalive_timeout=30),
                timeout=aiohttp.ClientTimeout(total=None),
            )
        # Where aiohttp's own limit and a cancellation meet, it loses the cancellation.
        async with (
            asyncio.timeout(wait_s),
            self._session.post(
                self._url + SEAL.format(episode=episode_id),
                data=msgspec.json.encode(
                    SealRequest(verdict.outcome, verdict.error, verdict.children)
                ),
                headers={
                    "Authorization": f"Bearer {self._bearer()}",
                    "Content-Type": "application/json",
                },
                allow_redirects=False,
            ) as answer,
        ):
            body = await answer.read()
            if answer.status in HOPELESS:
                raise SealRefused(
                    f"the proxy refuses to seal {episode_id}: status {answer.status}; do host and "
                    "proxy share ODRADEK_TOKEN_KEYS?"
                )
            if answer.status != 200:
                raise SealUnavailable(f"the proxy answered {answer.status}")
        try:
            return msgspec.json.decode(body, type=SealReply)
        except msgspec.MsgspecError:
            return SealReply()

    def _bearer(self) -> str:
        now = time.time()
        if now > self._token_ends - LIFETIME_S / 4:
            self._token_ends = now + LIFETIME_S
            self._token = mint(
                Claims(sub="*", scope="host", agent=self._agent), self._keys, lifetime_s=LIFETIME_S
            )
        return self._token

    async def aclose(self) -> None:
        """See `Sealer`."""
        if self._session is not None:
            await self._session.close()
