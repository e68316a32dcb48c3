"""How many tokens of a forward pass fit into memory: what was asked for, and what a run learned."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class TokenBudget:
    """Most tokens of a micro-batch.

    Attributes:
        asked: By the settings.
        learned: What has turned out to fit, at most `asked`; it only ever falls.
    """

    asked: int
    learned: int

    @classmethod
    def of(cls, asked: int, kept: "TokenBudget | None" = None) -> "TokenBudget":
        """The budget of a start; what an earlier one learned counts if as much was asked for."""
        return kept if kept is not None and kept.asked == asked else cls(asked, asked)

    def halved(self, tokens: int) -> "TokenBudget":
        """After a micro-batch of so many tokens, of two rows or more, did not fit."""
        return replace(self, learned=max(min(self.learned, tokens) // 2, 1))
