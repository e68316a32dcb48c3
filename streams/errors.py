"""Errors of the streams.

StreamError
├── DeadlinesRefused     deadlines that do not fit into each other or into retention: at start
├── TransactionFailed    retriable: Kafka did not tell whether a commit happened; end, be restarted
├── RewardRefused        `module:function` names no reward function
├── RewardFailed         a reward function raised: dead letter, never a number
├── Undecided            the service was told to end over a conversation: its successor judges it
├── NoWorker             retriable: workers cannot be started; end, be restarted
├── ReplayRefused        the batches to replay, or the topic to write them to, cannot be used
├── HistoryUnknown       the log holds nothing of the name, number or place that was asked for
└── HistoryGone          it did, and retention has deleted it
"""

from typing import ClassVar


class StreamError(Exception):
    """Base of what the streams raise; its text is one line that says what to do."""

    retriable: ClassVar[bool] = False


class DeadlinesRefused(StreamError):
    """Deadlines that contradict each other or that retention would overtake."""


class TransactionFailed(StreamError):
    """A transaction ended in a way that leaves its outcome open."""

    retriable = True


class RewardRefused(StreamError):
    """A reward function that cannot be loaded or called."""


class RewardFailed(StreamError):
    """A reward function raised, returned no finite number, or took its worker with it.

    Attributes:
        lost: The worker died, or a signal met its verdict: we may be about to end, too.
        again: Another worker may do better: the fault need not be the conversation's.
    """

    def __init__(self, why: str, *, lost: bool = False, again: bool = False) -> None:
        super().__init__(why)
        self.lost = lost
        self.again = again


class Undecided(StreamError):
    """The service is ending: the conversation has no verdict and stays uncommitted."""


class NoWorker(StreamError):
    """Workers die before they are asked anything, or the system makes none."""

    retriable = True


class ReplayRefused(StreamError):
    """A replay that would not repeat what happened."""


class HistoryUnknown(StreamError):
    """Nothing of that name, number or place is on the log."""


class HistoryGone(StreamError):
    """What was asked for was on the log, and retention has deleted it."""
