"""Which tasks of a partition went out: the dispatcher's memory between its lives, pure.

It stands in the metadata of the committed offset, so it is committed with what it describes.
"""

import base64
import binascii
from enum import IntEnum
from typing import Final

WINDOW: Final = 8192
"""How far reading may be ahead of the low-water mark: two bits a task must fit the metadata,
of which Kafka takes 4096 bytes."""


class TaskState(IntEnum):
    """Where a task stands; two bits."""

    WAITING = 0
    SENT = 1
    DONE = 2
    REPEATED = 3
    """Sent, and published once more since; it is out like one that was sent."""


class TaskProgress:
    """The standing of the tasks of one partition, from the oldest that is not done.

    Args:
        position: The committed offset.
        metadata: What `metadata` gave with it.
    """

    def __init__(self, position: int, metadata: str = "") -> None:
        self.batches, self._recorded = _read(metadata)
        self._low = position
        self._standing: list[TaskState] = []

    @property
    def recorded(self) -> int:
        """How many offsets from the low-water mark the metadata covered."""
        return len(self._recorded)

    @property
    def waiting(self) -> list[int]:
        """Offsets of the tasks that the metadata covers and says were not sent."""
        return [
            self._low + index
            for index, standing in enumerate(self._recorded)
            if standing is TaskState.WAITING
        ]

    @property
    def low_water(self) -> int:
        """The oldest offset that is not done."""
        return self._low

    @property
    def next(self) -> int:
        """The offset to read next."""
        return self._low + len(self._standing)

    @property
    def full(self) -> bool:
        """Whether reading must wait until older tasks are done."""
        return len(self._standing) >= WINDOW

    def take(self, offset: int) -> TaskState:
        """A task was read; return where it stood when the offset was committed.

        Offsets that were skipped held no task (markers of transactions): they are done.
        """
        while self.next < offset:
            self._standing.append(TaskState.DONE)
        index = len(self._standing)
        recorded = self._recorded[index] if index < len(self._recorded) else TaskState.WAITING
        self._standing.append(recorded)
        return recorded

    def put(self, offset: int, standing: TaskState) -> None:
        """A task was sent, or is done."""
        if offset >= self._low:
            self._standing[offset - self._low] = standing

    def standing(self, offset: int) -> TaskState:
        """Where a task stands that was read and is not settled."""
        return self._standing[offset - self._low]

    def is_out(self, offset: int) -> bool:
        """Whether a task went out and is not done."""
        return self.standing(offset) in {TaskState.SENT, TaskState.REPEATED}

    def settle(self) -> None:
        """Move the low-water mark past finished tasks."""
        ahead = 0
        while ahead < len(self._standing) and self._standing[ahead] is TaskState.DONE:
            ahead += 1
        del self._standing[:ahead]
        del self._recorded[:ahead]
        self._low += ahead

    def metadata(self, batches: int) -> str:
        """The metadata to commit with `low_water`.

        Args:
            batches: The offset from which batches must be read to know what is passed.
        """
        packed = bytearray((len(self._standing) + 3) // 4)
        for index, standing in enumerate(self._standing):
            packed[index // 4] |= standing << (index % 4 * 2)
        return f"1;{batches};{len(self._standing)};{base64.b64encode(packed).decode()}"


def _read(metadata: str) -> tuple[int, list[TaskState]]:
    """The offset of the batches and the standings in a commit's metadata.

    Nothing, if it is no metadata of ours, as after an offset was set by hand.
    """
    parts = metadata.split(";")
    if len(parts) != 4 or parts[0] != "1":
        return 0, []
    try:
        packed = base64.b64decode(parts[3], validate=True)
        count = int(parts[2])
        standings = [TaskState(packed[index // 4] >> (index % 4 * 2) & 3) for index in range(count)]
        return int(parts[1]), standings
    except (ValueError, IndexError, binascii.Error):
        return 0, []
