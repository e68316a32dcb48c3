"""All episodes that a proxy knows, and for how long."""

from collections.abc import Callable, Iterator
from typing import Final

from odradek.proxy.dialects.replies import ReplyStore
from odradek.proxy.episodes.episode import LiveEpisode, SealRecord
from odradek.proxy.errors import EpisodeClosed

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
        self._sealed: dict[str, tuple[SealRecord, float]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[LiveEpisode]:
        return iter(list(self._open.values()))

    def get(self, episode_id: str) -> LiveEpisode | None:
        """The episode's story, if there is one."""
        return self._open.get(episode_id)

    def sealed(self, episode_id: str) -> SealRecord | None:
        """What an earlier seal wrote, while it is remembered."""
        found = self._sealed.get(episode_id)
        return found[0] if found else None

    def check(self, episode_id: str) -> None:
        """Raise EpisodeSealed if an episode has ended here."""
        if episode_id in self._sealed:
            raise EpisodeClosed("the episode has ended: it takes no further call")

    def of(self, episode_id: str, *, until: float = 0.0) -> LiveEpisode:
        """The episode's story, a new one if need be; kept until `until` (clock) at least.

        Raises EpisodeClosed.
        """
        story = self._open.get(episode_id)
        if story is None:
            self.check(episode_id)
            story = self._open[episode_id] = LiveEpisode(episode_id, self._clock())
        story.until = max(story.until, until)
        return story

    def memory(self, episode_id: str) -> ReplyStore:
        """What the episode's earlier replies were."""
        story = self._open.get(episode_id)
        return NOTHING if story is None else story.memory

    def close(self, story: LiveEpisode, sealing: SealRecord) -> None:
        """The log has EpisodeSealed: drop the story, remember that it ended."""
        self._sealed[story.episode_id] = (sealing, max(self._clock() + self._keep_s, story.until))
        self._open.pop(story.episode_id, None)

    def drop(self, story: LiveEpisode) -> None:
        """Forget an episode that nobody can name again."""
        self._open.pop(story.episode_id, None)

    def sweep(self) -> None:
        """Free what nobody can ask for any more.

        An idle episode loses its history, which only makes its next turn larger. It loses its
        numbering only when every token seen for it has long ended, since a second run of seq from
        0 by the same writer would read as duplicates.
        """
        now = self._clock()
        for story in [story for story in self._open.values() if not story.calls]:
            if now - story.used_at > self._idle_s:
                story.forget()
            if now > max(story.until, story.used_at) + self._keep_s:
                del self._open[story.episode_id]
        for episode_id in [name for name, (_, until) in self._sealed.items() if until < now]:
            del self._sealed[episode_id]
        self._fit()

    def _fit(self) -> None:
        """Hold what all episodes keep below its bound; those used longest ago give first.

        Between two sweeps it may be passed by what arrives in a second.
        """
        over = sum(story.size for story in self._open.values()) - self._max_bytes
        if over <= 0:
            return
        oldest = sorted(self._open.values(), key=lambda story: story.used_at)
        # Histories first: without one a turn is only larger, without its replies a request fails.
        for give_back in (LiveEpisode.forget, LiveEpisode.forget_replies):
            for story in oldest:
                before = story.size
                give_back(story)
                over -= before - story.size
                if over <= 0:
                    return
