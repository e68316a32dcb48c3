"""Late rewards, counted apart: they are no episodes, and no episode is lost or doubled by one."""

from collections.abc import Container, Mapping

from odradek.infra.bus import Record
from odradek.schemas.events import Batch
from odradek.schemas.revisions import RevisionBook, RewardedEpisode, revised_batch


class RevisionCounts:
    """The rewards of `rl.revisions.v1`."""

    def __init__(self) -> None:
        self._book = RevisionBook()
        self._episodes: dict[str, int] = {}

    def reward(self, record: Record) -> None:
        """Take a record of the topic. Raises InvalidRecord."""
        reward = self._book.read(record.offset, record.value, record.headers)
        self._episodes[reward.episode_id] = self._episodes.get(reward.episode_id, 0) + 1

    def table(self, opened: Container[str]) -> dict[str, int]:
        """How many late rewards there are, of how many episodes, and how many of unknown ones."""
        return {
            "rewards": sum(self._episodes.values()),
            "episodes": sum(episode in opened for episode in self._episodes),
            "unknown": sum(n for episode, n in self._episodes.items() if episode not in opened),
        }

    def revised(
        self, batch: Batch, episodes: Mapping[str, RewardedEpisode], until: int
    ) -> Batch | None:
        """A batch as the late rewards before an offset make it; None where an episode is gone."""
        if any(name not in episodes for name in self._book.concerns(batch, until)):
            return None
        return revised_batch(batch, episodes, self._book, until)
