"""What a commit says is done, whichever process wrote it: pure.

There are four forms of metadata. Stages say a done mark, dispatchers where each task stands, hosts,
reward services and subscriptions which records are unfinished, and all others nothing.
"""

from odradek.agents.dispatch.progress import TaskProgress
from odradek.infra.bus import DoneOffsets
from odradek.streams.drivers.partition import done_mark


def done_offsets(offset: int, metadata: str) -> DoneOffsets:
    """What is done by a commit: its offset, and its metadata in any of the four forms."""
    if metadata.startswith("done="):
        return DoneOffsets(max(offset, done_mark(metadata)))
    if metadata.count(";") == 3:
        progress = TaskProgress(offset, metadata)
        return DoneOffsets(offset + progress.recorded, tuple(progress.waiting))
    return DoneOffsets.of(offset, metadata)
