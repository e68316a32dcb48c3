"""The state of one moment, copied into the machine's memory while the training thread waits.

Until the copy is written, training goes on and changes what it was made of. The room of a copy is
used again for the next one: only one checkpoint is written at a time.
"""

from collections.abc import Mapping

import torch


class SnapshotRoom:
    """Memory for copies of tensors."""

    def __init__(self) -> None:
        self._rooms: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def copied(self, group: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Copies of tensors, good until the next ones of the same group are asked for.

        Args:
            group: What belongs together, such as the model.
            tensors: On any device, by name.
        """
        copies = {}
        for name, tensor in tensors.items():
            room = self._rooms.get(f"{group}/{name}")
            if room is None or (room.shape, room.dtype) != (tensor.shape, tensor.dtype):
                room = torch.empty(tensor.shape, dtype=tensor.dtype)
                self._rooms[f"{group}/{name}"] = room
            copies[name] = room.copy_(tensor)
        return copies
