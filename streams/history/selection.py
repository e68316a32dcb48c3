"""Which batches are meant: filters that all must hold. Pure: no I/O, no clock.

What a batch itself says is asked first. Only a batch that passes is held against its episodes, and
only where a filter needs them: so a selection by task or time reads no episode.
"""

import math

from msgspec import Struct

from odradek.schemas.events import Batch, Conversation, Episode, EpisodeHead, Pointer
from odradek.streams.history.spans import CountSpan, RewardSpan


class Selection(Struct, frozen=True, kw_only=True):
    """Filters of batches and their episodes; a filter that is empty takes all.

    A batch is taken where its own filters hold and one of its episodes passes all filters of
    episodes.
    """

    offsets: CountSpan | None = None
    """Of the batch on its topic."""
    steps: CountSpan | None = None
    """Optimizer steps that used the batch."""
    run: str = "main"
    """Whose steps."""
    since: float = -math.inf
    """Unix seconds: batches that were written at this time or later."""
    until: float = math.inf
    """Unix seconds: batches that were written before this time."""
    tasks: tuple[str, ...] = ()
    """Ids of tasks."""
    items: tuple[str, ...] = ()
    """What tasks were made from: the same in every epoch."""
    agents: tuple[str, ...] = ()
    """Names of agents."""
    purpose: str = ""
    """`train` or `eval`."""
    versions: CountSpan | None = None
    """Policy versions, one of which sampled a token of the episode."""
    reward: RewardSpan | None = None
    """Of the episode."""

    @property
    def is_empty(self) -> bool:
        """Whether everything is taken."""
        return self == Selection(run=self.run)

    @property
    def reads_episodes(self) -> bool:
        """Whether the records of episodes are needed: batches alone do not say enough."""
        return self.versions is not None or (self.reward is not None and self.reward.component > "")

    def takes_batch(
        self, batch: Batch, *, offset: int, timestamp: float, used: frozenset[int] | None = None
    ) -> bool:
        """Whether what a batch itself says passes; its episodes may have more to say.

        Args:
            batch: The batch.
            offset: Where it stands.
            timestamp: When it was written, Unix seconds.
            used: Offsets that the wanted steps used; read where `steps` is set.
        """
        if self.steps is not None and offset not in (used or ()):
            return False
        if self.offsets is not None and offset not in self.offsets:
            return False
        if not self.takes_task(batch, timestamp):
            return False
        if self.reward is None or self.reward.component:
            return True
        return any(map(self.takes_pointer, batch.episodes))

    def takes_task(self, of: Batch | EpisodeHead | Conversation, timestamp: float) -> bool:
        """Whether the time of a record passes, and the task that it is of."""
        if not self.since <= timestamp < self.until or self.purpose not in {"", of.purpose}:
            return False
        named = ((self.tasks, of.task_id), (self.items, of.item), (self.agents, of.agent))
        return not any(wanted and name not in wanted for wanted, name in named)

    def takes_pointer(self, pointer: Pointer) -> bool:
        """Whether what a pointer says of its episode passes; the episode may have more to say."""
        reward = self.reward
        return reward is None or bool(reward.component) or reward.takes(pointer.reward)

    def takes_episode(self, pointer: Pointer, episode: Episode) -> bool:
        """Whether an episode, to which its batch points, passes all filters of episodes."""
        if self.reward is not None:
            component = self.reward.component
            reward = episode.components.get(component) if component else pointer.reward
            if not self.reward.takes(reward):
                return False
        if self.versions is None:
            return True
        return any(
            span.version in self.versions and span.end > span.start
            for sequence in episode.sequences
            for span in sequence.versions
        )
