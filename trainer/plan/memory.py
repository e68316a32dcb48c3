"""How much memory a step will take: an estimate at the start, before a pass has been tried.

Weights, gradients and both of Adam's moments are float32, 16 bytes a parameter (ZeRO, arXiv
1910.02054, section 3.1, where mixed precision keeps two more copies of 2 bytes that autocast does
not). A layer keeps 34 bytes of activations for each token and hidden unit in 16 bits, without
attention scores, which FlexAttention does not keep (arXiv 2205.05198, equation 1); in float32 twice
as much. Where activations are computed twice, a layer keeps its input alone.
"""

from dataclasses import dataclass
from typing import Final

WEIGHT: Final = 4
"""Bytes of a float32 weight; as many of its gradient."""
MOMENTS: Final = {"adamw": 8, "adamw_8bit": 2, "adamw_paged": 0, "adamw_8bit_paged": 0}
"""Bytes of both moments of a weight that a card must have room for, by optimizer."""
KEPT: Final = 34
"""Bytes of activations of a layer, for each token and hidden unit, in 16 bits."""
ALLOCATOR: Final = 0.9
"""Share of a card's memory that one can count on: the rest is CUDA's own, and what lies between."""


@dataclass(frozen=True)
class StepMemory:
    """What a step takes.

    Attributes:
        trained: Parameters that are trained.
        frozen: Parameters that are only read, those of a reference or proximal model among them, as
            many as would take their memory in float32.
        layers: Layers of the model.
        hidden: Hidden units.
        width: Bytes of an activation: 2 under autocast, 4 in float32.
        checkpointed: Every how many layers activations are computed twice; 0 nowhere.
        optimizer: As in MOMENTS.
        adapter: Whether only an adapter is trained.
    """

    trained: int
    frozen: int
    layers: int
    hidden: int
    width: int
    checkpointed: int = 0
    optimizer: str = "adamw"
    adapter: bool = False

    @property
    def standing(self) -> int:
        """Bytes that every step takes, however short its rows are."""
        return (2 * WEIGHT + MOMENTS[self.optimizer]) * self.trained + WEIGHT * self.frozen

    @property
    def by_token(self) -> int:
        """Bytes of activations that a token of a pass takes."""
        whole = KEPT * self.hidden * self.width // 2
        if not self.checkpointed:
            return self.layers * whole
        twice = -(-self.layers // self.checkpointed)
        # One layer at a time is computed again, and then keeps all.
        return (self.layers - twice + 1) * whole + twice * self.hidden * self.width

    def fitting(self, room: int) -> int:
        """How many tokens of a pass fit into a card of so many bytes; 0 where nothing does."""
        return max(int(room * ALLOCATOR) - self.standing, 0) // self.by_token

    def line(self, room: int, asked: int) -> str:
        """The estimate for people: what will fit, and what to change where it does not.

        Args:
            room: Bytes of the card.
            asked: `micro_tokens`.
        """
        fitting = self.fitting(room)
        stands = f"{self.standing / 1e9:.1f} GB of weights, gradients and moments"
        if not fitting:
            return f"{stands} do not fit into {room / 1e9:.0f} GB: {self._smaller()}"
        line = f"{stands}; about {fitting:,} tokens of a pass fit into {room / 1e9:.0f} GB"
        if fitting >= asked:
            return f"{line}, and micro_tokens is {asked:,}"
        return f"{line}, fewer than micro_tokens ({asked:,}): {self._lighter()}"

    def _smaller(self) -> str:
        changes = ["a smaller model"]
        if self.adapter:
            return changes[0]
        if self.optimizer == "adamw":
            changes.append("optimizer = adamw_8bit or adamw_paged")
        if self.frozen:
            changes.append("kl = 0 and tis = 0, which need copies of it")
        changes.append("lora_rank = 16, which trains an adapter in place of the weights")
        return "; or ".join(changes)

    def _lighter(self) -> str:
        changes = ["it will be halved by itself"]
        if self.checkpointed != 1:
            changes.append("gradient_checkpointing = 1 keeps less of each")
        if self.width == WEIGHT:
            changes.append("precision = bfloat16 keeps half")
        return "; ".join(changes)
