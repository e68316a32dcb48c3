"""Counting the tokens of a prompt: the engine's own count, which samples and records nothing."""

import asyncio
from typing import Final

import msgspec
from msgspec import Raw

from odradek.proxy.dialects.dialect import ParsedRequest
from odradek.proxy.engines.client import BUSY
from odradek.proxy.engines.pool import Pool
from odradek.proxy.episodes.episode import LiveEpisode
from odradek.proxy.errors import (
    BudgetSpent,
    EngineBusy,
    EngineError,
    EngineSlow,
    TooManyCalls,
    Unsupported,
)
from odradek.proxy.wire.body import UNREADABLE, error_of
from odradek.schemas.http.engine import COUNT
from odradek.schemas.http.reply import TokenCount

RENDERED: Final = (
    "model", "messages", "tools", "add_generation_prompt", "continue_final_message",
    "chat_template_kwargs",
)  # fmt: skip
"""Fields of a request that a count takes, and that make its prompt what it is."""

_fields: Final = msgspec.json.Decoder(dict[str, Raw])


class TokenCounter:
    """Counts prompts, so many of an episode at once and in all.

    Args:
        engine: Whose count it is.
        deadline_s: How long one may take.
        at_once: Bound of an episode's counts in flight.
    """

    def __init__(self, engine: Pool, *, deadline_s: float, at_once: int) -> None:
        self._engine = engine
        self._deadline_s = deadline_s
        self._at_once = at_once

    async def count(self, episode: LiveEpisode, request: ParsedRequest, allowed: int) -> int:
        """How many tokens a request's prompt has; an episode is `allowed` so many counts.

        Raises TooManyCalls, BudgetSpent, Unsupported, or an EngineError.
        """
        if episode.counting >= self._at_once:
            raise TooManyCalls(f"the episode has {self._at_once} prompts being counted already")
        if episode.counted >= allowed:
            raise BudgetSpent(f"the episode has had its {allowed} counts of tokens")
        episode.counting += 1
        episode.counted += 1
        try:
            return await self._ask(episode, request)
        finally:
            episode.counting -= 1

    async def _ask(self, episode: LiveEpisode, request: ParsedRequest) -> int:
        fields = _fields.decode(request.body)
        body = msgspec.json.encode({name: fields[name] for name in RENDERED if name in fields})
        response = self._engine.ask(COUNT.path, body, None, episode=episode.episode_id)
        try:
            async with asyncio.timeout(self._deadline_s), await response as upstream:
                status, answer = upstream.status, await upstream.read()
        except TimeoutError:
            raise EngineSlow("the engine did not count these tokens in time") from None
        if status >= 400:
            problem = error_of(answer, status)
            if status in BUSY:
                raise EngineBusy(f"the engine counts no tokens now: {problem}")
            if status >= 500:
                raise EngineError(f"the engine failed to count these tokens: {problem}")
            raise Unsupported(f"the engine cannot count these tokens: {problem}")
        try:
            return msgspec.json.decode(answer, type=TokenCount).count
        except UNREADABLE:
            raise EngineError("the engine's count of tokens cannot be read") from None
