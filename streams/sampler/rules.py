"""How fresh and old batches are mixed, and how the old ones are drawn: the rules, as numbers."""

from dataclasses import dataclass, field
from typing import Final, Literal

Order = Literal["uniform", "recency", "reward", "proportional"]
"""By what batches are drawn: all alike; the newest first; by the reward of their samples; by the
advantages of their samples, as the trainer's feedback has them."""

LEAST: Final = 1e-3
"""Added to every priority, so that what seemed to teach nothing may still be drawn."""
MOST: Final = 1e30
"""What a priority counts at most."""


@dataclass(frozen=True)
class DrawRules:
    """The rules of a memory of batches.

    Attributes:
        order: By what batches are drawn.
        capacity: Batches that are remembered; beyond that the oldest is forgotten. Drawn uniformly,
            this is a plain FIFO buffer (arXiv 2604.08706).
        alpha: Exponent of priorities: 0 draws uniformly, 1 in proportion (Schaul and others, arXiv
            1511.05952, equation 1).
        beta: Exponent of importance weights: 0 leaves all at 1, 1 undoes the bias of the draw
            (section 3.4 there).
        half_life: After so many newer batches a priority counts half; 0: age is nothing (arXiv
            2604.16918 finds that without decay priorities hurt).
        max_uses: How often a batch is drawn at most; 0 for no bound.
    """

    order: Order = "proportional"
    capacity: int = 4096
    alpha: float = 0.6
    beta: float = 0.4
    half_life: float = 256.0
    max_uses: int = 4


@dataclass(frozen=True)
class MixRules:
    """The rules of a mixer.

    Attributes:
        fresh: Fresh batches that teach something, before old ones follow.
        replayed: How many old batches follow then.
        seed: Decides the draws, together with what was read.
        draws: How the old ones are drawn.
    """

    fresh: int = 4
    replayed: int = 4
    seed: int = 0
    draws: DrawRules = field(default_factory=DrawRules)
