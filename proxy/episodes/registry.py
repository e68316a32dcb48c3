"""All episodes that a proxy knows, and for how long."""

from collections.abc import Callable, Iterator
from typing import Final

from odradek.proxy.dialects.replies import ReplyStore
from odradek.proxy.episodes.episode import LiveEpisode
from odradek.proxy.errors import EpisodeClosed
from odradek.schemas.http.seal import SealReply

NOTHING: Final = ReplyStore()


class EpisodeRegistry:
    """All episodes that this process knows, open or sealed, each for a bounded time."""

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        idle_s: float,
        keep_s: float,
        max_bytes: int = 2**31,
    ) -> None:
        self._clock = clock
        self._idle_s = idle_s
        self._keep_s = keep_s
        self._max_bytes = max_bytes
        self._open: dict[str, LiveEpisode] = {}
        self._sealed: dict[str, tuple[SealReply, float]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[LiveEpisode]:
        return iter(list(self._open.values()))

    def get(self, episode_id: str) -> LiveEpisode | None:
        """The open episode of this name, if there is one."""
        return self._open.get(episode_id)

    def sealed(self, episode_id: str) -> SealReply | None:
        """The result of an earlier seal, while it is remembered."""
        entry = self._sealed.get(episode_id)
        return entry[0] if entry else None

    def check(self, episode_id: str) -> None:
        """Raise EpisodeSealed if an episode has ended here."""
        if episode_id in self._sealed:
            raise EpisodeClosed("the episode has ended: it takes no further call")

    def of(self, episode_id: str, *, until: float = 0.0) -> LiveEpisode:
        """The open episode of this name, a new one if need be; kept until `until` (clock) at least.

        Raises EpisodeClosed.
        """
        episode = self._open.get(episode_id)
        if episode is None:
            self.check(episode_id)
            episode = self._open[episode_id] = LiveEpisode(episode_id, self._clock())
        episode.until = max(episode.until, until)
        return episode

    def memory(self, episode_id: str) -> ReplyStore:
        """The episode's earlier replies."""
        episode = self._open.get(episode_id)
        return NOTHING if episode is None else episode.memory

    def close(self, episode: LiveEpisode, sealing: SealReply) -> None:
        """The log has EpisodeSealed: drop the episode, remember that it ended."""
        self._sealed[episode.episode_id] = (
            sealing,
            max(self._clock() + self._keep_s, episode.until),
        )
        self._open.pop(episode.episode_id, None)

    def drop(self, episode: LiveEpisode) -> None:
        """Forget an episode that nobody can name again."""
        self._open.pop(episode.episode_id, None)

    def sweep(self) -> None:
        """Free what nobody can ask for any more.

        An idle episode loses its history, which only makes its next turn larger. It loses its
        numbering only when every token seen for it has long ended, since a second run of seq from
        0 by the same writer would read as duplicates.
        """
        now = self._clock()
        for episode in [episode for episode in self._open.values() if not episode.calls]:
            if now - episode.used_at > self._idle_s:
                episode.forget()
            if now > max(episode.until, episode.used_at) + self._keep_s:
                del self._open[episode.episode_id]
        for episode_id in [name for name, (_, until) in self._sealed.items() if until < now]:
            del self._sealed[episode_id]
        self._fit()

    def _fit(self) -> None:
        """Hold what all episodes keep below its bound; those used longest ago give first.

        Between two sweeps it may be passed by what arrives in a second.
        """
        over = sum(episode.size for episode in self._open.values()) - self._max_bytes
        if over <= 0:
            return
        oldest = sorted(self._open.values(), key=lambda episode: episode.used_at)
        # Histories first: without one a turn is only larger, without its replies a request fails.
        for give_back in (LiveEpisode.forget, LiveEpisode.forget_replies):
            for episode in oldest:
                before = episode.size
                give_back(episode)
                over -= before - episode.size
                if over <= 0:
                    return
