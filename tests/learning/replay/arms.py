"""The arms of the comparison: they differ in the settings of sampler and trainer, nothing else."""

from dataclasses import dataclass, field
from typing import Any, Final

from odradek.schemas.topics import BATCHES, MIXED
from odradek.streams.sampler.settings import SamplerSettings

LEARNING: Final[dict[str, Any]] = {
    "loss": "dapo",
    "learning_rate": 1e-3,
    "kl": 0.1,
    "rows_per_step": 32,
    "max_staleness": 4,
    "tis": 2.0,
}
"""Of every arm's trainer: the demo's, with the importance weights that replay needs."""
MIX: Final[dict[str, Any]] = {"fresh": 2, "replayed": 6}
SHARE: Final[dict[str, Any]] = {"fresh_share": 0.2}
"""Of each step's rows at least: a quarter of what is mixed is fresh, and groups do not fill steps."""


@dataclass(frozen=True)
class Arm:
    """How a run's batches are mixed.

    Attributes:
        sampler: Settings of `[sampler]`; None trains on fresh batches alone.
    """

    name: str
    label: str
    sampler: dict[str, Any] | None = None
    trainer: dict[str, Any] = field(default_factory=dict)

    @property
    def topic(self) -> str:
        """What the trainer reads."""
        return BATCHES.name if self.sampler is None else MIXED.name

    def learning(self) -> dict[str, Any]:
        """Settings of the trainer."""
        return {**LEARNING, **self.trainer}

    def mixing(self, seed: int) -> SamplerSettings | None:
        """Settings of the sampler, None without one."""
        return None if self.sampler is None else SamplerSettings(**self.sampler, seed=seed)


ARMS: Final = {
    arm.name: arm
    for arm in (
        Arm("on-policy", "fresh alone"),
        Arm("fifo", "FIFO", {**MIX, "order": "uniform", "capacity": 64}, SHARE),
        Arm("priority", "priorities", {**MIX, "order": "proportional", "half_life": 0}, SHARE),
        Arm(
            "decay", "decaying priorities", {**MIX, "order": "proportional", "half_life": 32}, SHARE
        ),
    )
}
