"""Writing turns: the commit point. No agent sees the end of a reply that is not acknowledged."""

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import msgspec

from odradek.infra.bus import Appender
from odradek.infra.errors import BusError, LogUnavailable
from odradek.infra.runtime import metrics
from odradek.infra.runtime.crash_points import crash_point
from odradek.proxy.episodes.draft import TurnDraft
from odradek.proxy.episodes.episode import LiveEpisode, PendingTurn
from odradek.proxy.errors import LogRefused, TurnTooLarge
from odradek.proxy.log import compose
from odradek.proxy.log.health import LogHealth
from odradek.schemas import codec
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import EpisodeOpened, EpisodeSealed, Event, Turn
from odradek.schemas.topics import TURNS

log = logging.getLogger("odradek.proxy")


class TurnWriter:
    """Appends this writer's events to the episodes they belong to.

    Args:
        appender: The log.
        writer: The boot id, new with every process.
        clock: Monotonic seconds.
        wait_s: How long a caller waits for the log, whatever else waits for it, too.
    """

    def __init__(
        self,
        appender: Appender,
        writer: str,
        clock: Callable[[], float],
        *,
        wait_s: float = 10.0,
    ) -> None:
        self.writer = writer
        self.turns = 0
        self.health: Final = LogHealth(clock, wait_s=wait_s)
        self._appender = appender
        self._clock = clock
        self._source: Final = "/proxy"  # an event's id names the writer
        self._ids = itertools.count()

    async def turn(self, episode: LiveEpisode, draft: TurnDraft) -> Turn:
        """Append a turn; return once the broker has acknowledged it.

        Raises:
            LogRefused: The log did not acknowledge it. It may still land: the episode keeps it as
                unsure, and it is sent again, unchanged, before anything that follows.
            TurnTooLarge: The topic never takes it; a turn without content stands in its place.
        """
        async with self._turn_of(episode):
            await self.settle_locked(episode)
            pending = self._pending(episode, draft)
            # The number is taken before the send, under the lock. If we die here it was never
            # used by anyone: the next process is another writer, and starts at 0.
            episode.next_seq += 1
            # Until it is acknowledged it is unknown: in the log or not. Giving its number to
            # another turn could make two of one number, skipping it could leave a gap. So it keeps
            # both, and goes first, however this send ends.
            episode.unsure.append(pending)
            crash_point("turn_before_send")
            crash_point("turn_sent_before_ack", in_s=0.001)
            try:
                await self._append(episode.episode_id, pending.value, pending.headers)
            except TurnTooLarge:
                self._slim(episode, pending)
                await self.settle_locked(episode)
                raise
            episode.sure(pending)
            # From here on the turn is durable. If we die before the agent has it, the agent's
            # retry reaches another writer, and readers see an equal digest with a retry count.
            crash_point("turn_acked_before_release")
            self._learn(episode, draft, pending.turn)
            return pending.turn

    async def ensure(self, episode: LiveEpisode, draft: TurnDraft) -> None:
        """Make sure of a turn that may have been sent already. Raises what `turn` raises."""
        if not draft.turn_id:
            await self.turn(episode, draft)
            return
        await self.settle(episode)
        if draft.turn_id in episode.slimmed:
            raise TurnTooLarge("the log could not take a turn of this size")

    async def admit(self, episode: LiveEpisode | None) -> None:
        """Return at once while the log takes turns, else once it does again. Raises LogRefused.

        What cannot be recorded is not to be sampled: it would only fill our memory.
        """
        if self.health.failing_since is None:
            return
        if episode is not None and episode.unsure:
            await self.settle(episode)
        else:
            await self.health.taking()

    async def settle(self, episode: LiveEpisode) -> None:
        """Send unacknowledged turns again. Raises LogRefused."""
        async with self._turn_of(episode):
            await self.settle_locked(episode)

    def _turn_of(self, episode: LiveEpisode) -> AbstractAsyncContextManager[None]:
        """The episode's lock, for a bounded time. Raises LogRefused after it."""
        if episode.lock.locked() or episode.unsure:
            return self._queued(episode)
        return episode.lock  # one append to wait for, which has the same bound of its own

    @asynccontextmanager
    async def _queued(self, episode: LiveEpisode) -> AsyncIterator[None]:
        """The same behind others, or behind turns that are sent first.

        Behind a log that takes nothing, calls of one episode would else wait one after the other.
        """
        began = self._clock()
        try:
            async with asyncio.timeout(self.health.wait_s), episode.lock:
                yield
        except TimeoutError as error:
            raise self._refused(error, began) from error

    async def settle_locked(self, episode: LiveEpisode) -> None:
        """The same, for who holds the episode's lock; what no log takes loses its content."""
        while episode.unsure:
            first = episode.unsure[0]
            # The same bytes, number and id: where the first send landed after all, readers drop
            # the second by (writer, seq).
            try:
                await self._append(episode.episode_id, first.value, first.headers)
            except TurnTooLarge:
                if first.turn.error == compose.TOO_LARGE:
                    raise
                self._slim(episode, first)  # the log was away when it was sent first
            else:
                episode.sure(first)

    async def opened(self, event: EpisodeOpened) -> None:
        """Append the EpisodeOpened of an unattributed call. Raises LogRefused."""
        await self._event(event.episode_id, event, f"{event.episode_id}/episode_opened")

    async def sealed(self, episode: LiveEpisode, event: EpisodeSealed) -> None:
        """Append EpisodeSealed behind every turn. Raises LogRefused.

        The caller has refused new calls and waited for those in flight; the lock and `settle`
        put every number below `n_turns` on the wire before it.
        """
        async with self._turn_of(episode):
            await self.settle_locked(episode)
            sealed = msgspec.structs.replace(event, n_turns=episode.next_seq)
            await self._event(
                episode.episode_id, sealed, f"{episode.episode_id}/episode_sealed/{self.writer}"
            )

    async def _event(self, key: str, event: Event, event_id: str) -> None:
        headers = codec.headers(event, source=self._source, subject=key, event_id=event_id)
        await self._append(key, codec.encode(event), headers)

    async def _append(self, key: str, value: bytes, headers: codec.Headers) -> None:
        began = self._clock()
        try:
            await self._appender.append(TURNS.name, key=key, value=value, headers=headers)
        except LogUnavailable as error:
            raise self._refused(error, began) from error
        except BusError as error:
            raise TurnTooLarge("the log cannot take a turn of this size") from error
        self.health.took()

    def _refused(self, error: Exception, began: float) -> LogRefused:
        self.health.failed(error, began)
        return self.health.refusal("the log did not acknowledge this call, its reply is withheld")

    def _pending(self, episode: LiveEpisode, draft: TurnDraft) -> PendingTurn:
        """The turn with the next number, and the record that it is."""
        turn_id = draft.turn_id = f"{self.writer}-{next(self._ids)}"
        turn = compose.placed(episode, draft, self.writer, turn_id)
        try:
            value = codec.encode(turn)
        except InvalidRecord as error:
            log.warning("turn %s has tokens that no reader accepts: %s", turn_id, error.reason)
            turn = compose.without_tokens(turn, draft)
            value = codec.encode(turn)
        return self._record(turn, value, draft.traceparent)

    def _record(self, turn: Turn, value: bytes, traceparent: str | None) -> PendingTurn:
        headers = codec.headers(
            turn,
            source=self._source,
            subject=turn.episode_id,
            event_id=turn.turn_id,
            traceparent=traceparent,
        )
        return PendingTurn(turn, value, headers)

    def _slim(self, episode: LiveEpisode, pending: PendingTurn) -> None:
        """Put a turn without content in the place of one that is too large, against a gap."""
        turn = compose.without_content(pending.turn)
        slim = self._record(turn, codec.encode(turn), None)
        episode.slimmed.add(turn.turn_id)
        if pending in episode.unsure:  # `best_effort` may have given it up meanwhile
            episode.unsure[episode.unsure.index(pending)] = slim
        metrics.moved(metrics.CAPTURE_GAPS, where="proxy")

    def _learn(self, episode: LiveEpisode, draft: TurnDraft, turn: Turn) -> None:
        """Remember a turn that the log has, for the turns that share something with it."""
        self.turns += 1
        metrics.count(metrics.TURNS, 1)
        if turn.request.tools_digest:
            episode.learn_tools(turn.request.tools_digest)
        if not turn.error and not turn.disconnected:
            episode.branches.add(compose.leaf(draft, turn))
