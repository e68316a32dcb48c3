"""Ending an episode: no new call, a bounded wait for those in flight, EpisodeSealed behind them."""

import asyncio
from typing import Final

import msgspec

from odradek.infra.runtime.crash_points import crash_point
from odradek.proxy.calls.call import LEFT, SEALED
from odradek.proxy.episodes.episode import EpisodePhase, LiveEpisode, SealRecord
from odradek.proxy.episodes.registry import EpisodeRegistry
from odradek.proxy.errors import BadRequest, LogRefused
from odradek.proxy.log.writer import TurnWriter
from odradek.schemas.events import EpisodeSealed, Outcome

MAX_ERROR: Final = 2000


class SealRequest(msgspec.Struct, frozen=True):
    """What a host says about an episode's end."""

    outcome: Outcome = Outcome.COMPLETED
    error: str = ""


def read(body: bytes) -> SealRequest:
    """The body of a seal. Raises BadRequest."""
    try:
        return msgspec.json.decode(body or b"{}", type=SealRequest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the seal cannot be read: {str(error)[:200]}") from None


class Seals:
    """Seals episodes, each once.

    Args:
        recorder: Writes EpisodeSealed.
        stories: What is known of episodes.
        wait_s: How long calls in flight may still take.
        log_s: How long one append may take.
    """

    def __init__(
        self, recorder: TurnWriter, stories: EpisodeRegistry, *, wait_s: float, log_s: float
    ) -> None:
        self._recorder = recorder
        self._stories = stories
        self._wait_s = wait_s
        self._log_s = log_s

    async def seal(self, episode_id: str, asked: SealRequest) -> SealRecord:
        """Seal an episode, or say what an earlier seal wrote.

        Raises LogRefused if the log did not take it: the episode takes no calls then, and the
        seal is to be repeated.
        """
        if (done := self._stories.sealed(episode_id)) is not None:
            return done
        story = self._stories.of(episode_id)
        async with story.seal_lock:
            if (done := self._stories.sealed(episode_id)) is not None:
                return done
            if story.stage is EpisodePhase.OPEN:
                story.move(EpisodePhase.SEALING)
            await self._quiet(story)
            return await self._write(story, asked)

    async def _quiet(self, story: LiveEpisode) -> None:
        """Wait until no call is in flight; each is recorded before it counts as over."""
        for call in story.calls:
            call.stop(LEFT if call.gone else SEALED, in_s=0 if call.gone else self._wait_s)
        try:
            async with asyncio.timeout(self._wait_s + 4 * self._log_s):
                await story.quiet.wait()
        except TimeoutError:
            raise LogRefused("calls of this episode are still being written: try again") from None

    async def _write(self, story: LiveEpisode, asked: SealRequest) -> SealRecord:
        outcome = asked.outcome
        if story.lost and outcome.counts:
            outcome = Outcome.INCOMPLETE
        event = EpisodeSealed(
            episode_id=story.episode_id,
            writer=self._recorder.writer,
            outcome=outcome,
            error=asked.error[:MAX_ERROR],
        )
        # If we die on this line, the host repeats its seal at our successor, which has written
        # nothing and seals with 0 turns of its own. If we die on the next one, the repetition
        # writes a second EpisodeSealed, which readers drop: the first one ended the episode.
        crash_point("seal_before_sealed")
        await self._recorder.sealed(story, event)
        crash_point("sealed_before_answer")
        story.move(EpisodePhase.SEALED)
        sealing = SealRecord(self._recorder.writer, story.next_seq, outcome)
        self._stories.close(story, sealing)
        return sealing
