"""What the trainer works with: all that is not torch."""

from collections.abc import Callable
from dataclasses import dataclass, field

from odradek.infra.runtime.crash_points import crash_point
from odradek.trainer.commit.announcer import Announcer
from odradek.trainer.commit.resume import ResumePoint
from odradek.trainer.feed.lineage import Lineage
from odradek.trainer.feed.rollout_worker import LogRolloutWorker
from odradek.trainer.weights.directory import DirectoryTransfer


@dataclass(frozen=True)
class TrainerParts:
    """What the trainer works with: all that is not torch."""

    feed: LogRolloutWorker
    transfer: DirectoryTransfer
    announcer: Announcer
    lineage: Lineage
    standing: ResumePoint = field(default_factory=ResumePoint)
    at: Callable[[str], None] = crash_point
    """Called at each crash point."""
