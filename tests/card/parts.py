"""The parts of the measurement: what each is, and how long it may take."""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


class NotBuilt(Exception):
    """What a part measures is not there yet."""


@dataclass(frozen=True)
class Part:
    """A part, by its letter."""

    module: str
    seconds: int
    """After which it is ended; its start counts."""
    about: str

    def measure(self, device: Any, sizes: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        """Its figures, one after another. Raises NotBuilt."""
        module = importlib.import_module(f"tests.card.{self.module}")
        figures: Iterator[tuple[str, dict[str, Any]]] = module.measure(device, sizes)
        return figures


PARTS = {
    "a": Part("attention", 60, "FlexAttention over trees against dense attention; their masks"),
    "b": Part("speed", 180, "tokens/s and memory: TRL's GRPOTrainer and ours, on one group"),
    "c": Part("rows", 90, "rows of 16k and 32k tokens; a step that does not fit into memory"),
    "d": Part("adapters", 60, "an adapter on a random model of 8B"),
    "e": Part("transfer", 60, "weights to a folder, and to another process on the same card"),
    "f": Part("game", 60, "the game learned to 0.9, its replies sampled on the card"),
}
NOT_SHOWN = (
    "not shown by one card: FSDP and NCCL (which refuses two ranks on one), and TRL's "
    "AsyncGRPOTrainer, whose attention kernel is fetched from a hub"
)
