"""What the trainer works with: all that is not torch."""

from collections.abc import Callable
from dataclasses import dataclass, field

from odradek.infra.runtime.crash_points import crash_point
from odradek.trainer.commit.announcer import Announcer
from odradek.trainer.commit.resume import Standing
from odradek.trainer.feed.lineage import Lineage
from odradek.trainer.feed.rollout_worker import LogFeed
from odradek.trainer.weights.directory import DirectoryTransfer


@dataclass(frozen=True)
class Hands:
    """What the trainer works with: all that is not torch."""

    feed: LogFeed
    transfer: DirectoryTransfer
    announcer: Announcer
    lineage: Lineage
    standing: Standing = field(default_factory=Standing)
    at: Callable[[str], None] = crash_point
    """Called at each crash point."""
