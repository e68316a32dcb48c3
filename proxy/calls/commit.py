"""The commit of a reply: its turns in the log, before its agent may see its end."""

import asyncio
import logging
from typing import Final

from odradek.infra.runtime import metrics
from odradek.proxy.calls import retries
from odradek.proxy.calls.call import ModelCall
from odradek.proxy.episodes.draft import RecordedReply, TurnDraft
from odradek.proxy.episodes.episode import LiveEpisode
from odradek.proxy.errors import LogRefused, TurnTooLarge
from odradek.proxy.log.writer import TurnWriter
from odradek.schemas.events import EpisodeOpened, EpisodeSealed, Outcome

log = logging.getLogger("odradek.proxy")
AGAIN_S: Final = 0.1


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

    async def admit(self, episode: LiveEpisode | None) -> None:
        """Let a call in, once the log takes its turn. Raises LogRefused."""
        if self._required:
            await self._turn_writer.admit(episode)

    async def record(self, call: ModelCall, reply: RecordedReply) -> None:
        """When this returns, the agent may see the end. Raises LogRefused or TurnTooLarge."""
        for draft in reply.drafts:
            try:
                await self._write(call, draft)
            except (LogRefused, TurnTooLarge) as error:
                self._lose(call.episode, reply, error)
        if call.permit.unattributed:
            try:
                await self._close(call, reply)
            except (LogRefused, TurnTooLarge) as error:
                self._lose(call.episode, reply, error)
        remember(call.episode, reply)
        if reply.error:
            call.episode.begun[call.request.digest] -= 1
        for draft in reply.drafts:
            usage = draft.captured.usage
            call.episode.tokens += usage.prompt_tokens + usage.completion_tokens
            metrics.record(metrics.TOKEN_USAGE, usage.prompt_tokens, call.operation, "input")
            metrics.record(metrics.TOKEN_USAGE, usage.completion_tokens, call.operation, "output")

    async def redeem(self, call: ModelCall, reply: RecordedReply) -> None:
        """Make sure that the log has a retry's reply as one that was released.

        Raises LogRefused or TurnTooLarge.
        """
        episode = call.episode
        try:
            for draft in reply.drafts:
                if not draft.turn.disconnected and draft.turn_id:
                    await self._turn_writer.ensure(episode, draft)
                    continue
                # The log has this reply as cut, or not at all. Now that it is released it is
                # written again, and the cut one stays as superseded.
                draft.again(retries=call.retries)
                await self._turn_writer.turn(episode, draft)
            remember(episode, reply)
        except LogRefused:
            retries.keep(episode, reply)
            raise

    def _lose(
        self, episode: LiveEpisode, reply: RecordedReply, error: LogRefused | TurnTooLarge
    ) -> None:
        """Withhold a reply that the log did not take: raises the error, unless it is served."""
        if self._required:
            if isinstance(error, LogRefused):
                retries.keep(episode, reply)
            raise error
        # Served all the same: the number is used up, so readers see a gap, and the seal says
        # that the episode is incomplete.
        episode.unsure.clear()
        episode.lost += 1
        self.lost += 1
        metrics.moved(metrics.CAPTURE_GAPS, where="proxy")
        log.warning("a turn of episode %s is not in the log", episode.episode_id)

    async def _write(self, call: ModelCall, draft: TurnDraft) -> None:
        """Write the turn; patiently, that is as long as the call may last, once a stream has begun.

        Its agent cannot be told to come again: SDKs repeat a refused request, and give up on an
        error within a stream.
        """
        while True:
            try:
                return await self._turn_writer.ensure(call.episode, draft)
            except LogRefused:
                begun = call.line is not None and call.line.begun
                patient = self._required and begun and call.ms() < 1000 * call.limit_s
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

    async def _close(self, call: ModelCall, reply: RecordedReply) -> None:
        outcome = Outcome.UPSTREAM_FAILED if reply.error else Outcome.COMPLETED
        sealed = EpisodeSealed(
            episode_id=call.episode.episode_id, writer=self._turn_writer.writer, outcome=outcome
        )
        await self._turn_writer.sealed(call.episode, sealed)


def remember(episode: LiveEpisode, reply: RecordedReply) -> None:
    """Note a reply that the log has, where its dialect can refer back to it."""
    first = reply.drafts[0]
    if first.request.origin is not None and not reply.error:
        first.request.origin.remember(episode.memory, first.request, first.captured)
