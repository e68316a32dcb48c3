"""Ending an episode: no new call, a bounded wait for those in flight, EpisodeSealed behind them."""

import asyncio
from typing import Final

import msgspec

from odradek.infra.runtime.crash_points import crash_point
from odradek.proxy.calls.call import LEFT, SEALED
from odradek.proxy.episodes.episode import EpisodePhase, LiveEpisode
from odradek.proxy.episodes.registry import EpisodeRegistry
from odradek.proxy.errors import BadRequest, LogRefused
from odradek.proxy.log.writer import TurnWriter
from odradek.schemas.events import EpisodeSealed, Outcome
from odradek.schemas.http.seal import SealReply, SealRequest

MAX_ERROR: Final = 2000


def read(body: bytes) -> SealRequest:
    """The body of a seal. Raises BadRequest."""
    try:
        return msgspec.json.decode(body or b"{}", type=SealRequest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the seal cannot be read: {str(error)[:200]}") from None


class Seals:
    """Seals episodes, each once.

    Args:
        turn_writer: Writes EpisodeSealed.
        episodes: What is known of episodes.
        wait_s: How long calls in flight may still take.
        log_s: How long one append may take.
    """

    def __init__(
        self, turn_writer: TurnWriter, episodes: EpisodeRegistry, *, wait_s: float, log_s: float
    ) -> None:
        self._turn_writer = turn_writer
        self._episodes = episodes
        self._wait_s = wait_s
        self._log_s = log_s

    async def seal(self, episode_id: str, request: SealRequest) -> SealReply:
        """Seal an episode, or repeat the result of an earlier seal.

        Raises LogRefused if the log did not take it: the episode takes no calls then, and the
        seal is to be repeated.
        """
        if (done := self._episodes.sealed(episode_id)) is not None:
            return done
        episode = self._episodes.of(episode_id)
        async with episode.seal_lock:
            if (done := self._episodes.sealed(episode_id)) is not None:
                return done
            if episode.stage is EpisodePhase.OPEN:
                episode.move(EpisodePhase.SEALING)
            await self._quiet(episode)
            return await self._write(episode, request)

    async def _quiet(self, episode: LiveEpisode) -> None:
        """Wait until no call is in flight; each is recorded before it counts as over."""
        for call in episode.calls:
            call.stop(LEFT if call.gone else SEALED, in_s=0 if call.gone else self._wait_s)
        try:
            async with asyncio.timeout(self._wait_s + 4 * self._log_s):
                await episode.quiet.wait()
        except TimeoutError:
            raise LogRefused("calls of this episode are still being written: try again") from None

    async def _write(self, episode: LiveEpisode, request: SealRequest) -> SealReply:
        outcome = request.outcome
        if episode.lost and outcome.counts:
            outcome = Outcome.INCOMPLETE
        event = EpisodeSealed(
            episode_id=episode.episode_id,
            writer=self._turn_writer.writer,
            outcome=outcome,
            error=request.error[:MAX_ERROR],
            children=request.children,
        )
        # If we die on this line, the host repeats its seal at our successor, which has written
        # nothing and seals with 0 turns of its own. If we die on the next one, the repetition
        # writes a second EpisodeSealed, which readers drop: the first one ended the episode.
        crash_point("seal_before_sealed")
        await self._turn_writer.sealed(episode, event)
        crash_point("sealed_before_answer")
        episode.move(EpisodePhase.SEALED)
        sealing = SealReply(self._turn_writer.writer, episode.next_seq, outcome)
        self._episodes.close(episode, sealing)
        return sealing
