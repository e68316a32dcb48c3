"""The commit of a reply: its turns in the log, before its agent may see its end."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from odradek.infra.runtime import metrics
from odradek.proxy.calls import agent_replies, retries
from odradek.proxy.calls.call import ModelCall
from odradek.proxy.episodes.draft import RecordedReply, TurnDraft
from odradek.proxy.errors import LogRefused, TurnTooLarge
from odradek.proxy.log.writer import TurnWriter
from odradek.schemas.events import EpisodeOpened, EpisodeSealed, Outcome

log = logging.getLogger("odradek.proxy")
AGAIN_S: Final = 0.1


def unseen() -> bool:
    """Commit a reply of which the agent has seen nothing, so it can still be asked to retry."""
    return False


class Commit:
    """Writes what replies become.

    Args:
        turn_writer: Writes turns.
        required: Whether a reply is withheld whose turn the log does not take.
    """

    def __init__(self, turn_writer: TurnWriter, *, required: bool) -> None:
        self.lost = 0
        """Turns served although the log did not take them."""
        self._turn_writer = turn_writer
        self._required = required

    async def record(
        self,
        call: ModelCall,
        result: RecordedReply,
        *,
        limit_s: float,
        begun: Callable[[], bool] = unseen,
    ) -> None:
        """When this returns, the agent may see the end. Raises LogRefused or TurnTooLarge.

        Args:
            call: Whose reply it is.
            result: The reply.
            limit_s: How long the call may take in all.
            begun: Whether its agent has seen a part of it.
        """
        for draft in result.drafts:
            write = self._write(call, draft, limit_s=limit_s, begun=begun)
            await self._durable(call, result, write)
        if call.permit.unattributed:
            await self._durable(call, result, self._close(call, result))
        agent_replies.remember(call.episode, result)
        if result.error:
            call.episode.begun[call.request.digest] -= 1
        for draft in result.drafts:
            used = draft.captured.usage
            call.episode.tokens += used.prompt_tokens + used.completion_tokens

    async def _durable(
        self, call: ModelCall, result: RecordedReply, write: Awaitable[object]
    ) -> None:
        episode = call.episode
        try:
            await write
        except (LogRefused, TurnTooLarge) as error:
            if self._required:
                if isinstance(error, LogRefused):
                    retries.keep(episode, result)
                raise
            # Served all the same: the number is used up, so readers see a gap, and the seal says
            # that the episode is incomplete.
            episode.unsure.clear()
            episode.lost += 1
            self.lost += 1
            metrics.moved(metrics.CAPTURE_GAPS, where="proxy")
            log.warning("a turn of episode %s is not in the log", episode.episode_id)

    async def _write(
        self, call: ModelCall, draft: TurnDraft, *, limit_s: float, begun: Callable[[], bool]
    ) -> None:
        """Write the turn; patiently, that is as long as the call may last, once a stream has begun.

        Its agent cannot be told to come again: SDKs repeat a refused request, and give up on an
        error within a stream.
        """
        while True:
            try:
                return await self._turn_writer.ensure(call.episode, draft)
            except LogRefused:
                patient = self._required and begun() and call.ms() < 1000 * limit_s
                if not patient or call.gone or call.ended_by:
                    raise
                await asyncio.sleep(AGAIN_S)

    async def open(self, call: ModelCall) -> None:
        """Begin the episode of a call that has none. Raises LogRefused."""
        name = call.episode.episode_id
        await self._turn_writer.opened(
            EpisodeOpened(
                episode_id=name,
                task_id=name,
                agent=call.permit.agent or "unattributed",
                sample=0,
                group_size=1,
                unattributed=True,
            )
        )

    async def _close(self, call: ModelCall, result: RecordedReply) -> None:
        outcome = Outcome.UPSTREAM_FAILED if result.error else Outcome.COMPLETED
        sealed = EpisodeSealed(
            episode_id=call.episode.episode_id, writer=self._turn_writer.writer, outcome=outcome
        )
        await self._turn_writer.sealed(call.episode, sealed)
