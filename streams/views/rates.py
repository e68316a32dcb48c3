"""Current rates: episodes a second and mean reward by agent. Counting, no I/O."""

from collections import Counter, deque
from typing import Any, Final

from odradek.infra.bus import Record
from odradek.schemas.events import EpisodeHead, GroupsEvent
from odradek.schemas.topics import EPISODES


class Rates:
    """The last `window_s` seconds of `rl.episodes.v1`, by append time."""

    source: Final = EPISODES
    kind: Final = GroupsEvent

    def __init__(self, window_s: float = 60.0) -> None:
        self.window_s = window_s
        self._episodes: deque[tuple[float, EpisodeHead]] = deque()

    def add(self, record: Record, event: Any) -> None:
        """Count an episode; see `LiveView`."""
        if isinstance(event, EpisodeHead) and not event.imported_from:
            self._episodes.append((record.timestamp, event))

    def snapshot(self, now: float) -> dict[str, Any]:
        """Per agent: episodes a second, mean reward of those that count, outcomes."""
        while self._episodes and self._episodes[0][0] <= now - self.window_s:
            self._episodes.popleft()
        agents: dict[str, dict[str, Any]] = {}
        for name in sorted({head.agent for _, head in self._episodes}):
            heads = [head for _, head in self._episodes if head.agent == name]
            rewards = [
                head.reward for head in heads if head.outcome.counts and head.reward is not None
            ]
            outcomes: Counter[str] = Counter(head.outcome.value for head in heads)
            agents[name] = {
                "episodes_per_s": len(heads) / self.window_s,
                "reward_mean": sum(rewards) / len(rewards) if rewards else None,
                "outcomes": dict(sorted(outcomes.items())),
            }
        return {"window_s": self.window_s, "agents": agents}
