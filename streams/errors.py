"""What can go wrong in the streams.

StreamError
├── DeadlinesRefused     deadlines that do not fit into each other or into retention: at start
├── LaneLost             another process owns the partition now: let it go, start nothing for it
├── TransactionFailed    retriable: Kafka did not tell whether a commit happened; end, be restarted
├── RewardRefused        `module:function` names no reward function
├── RewardFailed         a reward function raised: dead letter, never a number
└── ReplayRefused        the batches to replay, or the topic to write them to, cannot be used
"""

from typing import ClassVar


class StreamError(Exception):
    """Base of what the streams raise; its text is one line that says what to do."""

    retriable: ClassVar[bool] = False


class DeadlinesRefused(StreamError):
    """Deadlines that contradict each other or that retention would overtake."""


class LaneLost(StreamError):
    """A producer of ours was fenced: the partition belongs to somebody else."""


class TransactionFailed(StreamError):
    """A transaction ended in a way that leaves its outcome open."""

    retriable = True


class RewardRefused(StreamError):
    """A reward function that cannot be loaded or called."""


class RewardFailed(StreamError):
    """A reward function raised, or returned no finite number."""


class ReplayRefused(StreamError):
    """A replay that would not repeat what happened."""
