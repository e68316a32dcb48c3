"""Which rows of a step share a forward pass, on which rank, in which order.

Every row stands in exactly one micro-batch. One holds at most `budget` tokens, counted as they are
computed: what its rows share counts once. Rows of a group stay together as far as they fit, since
they share their prompt. All ranks have equally many micro-batches, so that none waits for another
inside a step, and about equally much to do. The longest come first: where memory is too small for
a step, that shows before time has gone into it.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from odradek.trainer.plan.prefix_tree import Ids, in_order, shared

LINEAR: Final = 4096
"""At how many tokens attention costs as much as all else of a layer, roughly: a token's cost is
1 + its position / LINEAR. Only the balance between ranks depends on it."""


@dataclass(frozen=True)
class MicroBatch:
    """Rows of one forward pass.

    Attributes:
        rows: Places of its rows among those that were planned.
        tokens: That are computed.
        cost: Of computing them, in tokens at the beginning of a row.
    """

    rows: tuple[int, ...]
    tokens: int
    cost: float

    def with_(self, other: "MicroBatch") -> "MicroBatch":
        """Both as one; what they share across groups is not counted."""
        return MicroBatch(
            self.rows + other.rows, self.tokens + other.tokens, self.cost + other.cost
        )


EMPTY: Final = MicroBatch((), 0, 0.0)
"""What a rank that has nothing left computes beside the others."""


@dataclass(frozen=True)
class StepPlan:
    """The micro-batches of a step, in their order, for each rank."""

    ranks: tuple[tuple[MicroBatch, ...], ...]


def plan(
    rows: Sequence[Ids], groups: Sequence[Hashable], *, budget: int, ranks: int = 1
) -> StepPlan:
    """Deal out the rows of a step.

    Args:
        rows: Token ids of each.
        groups: Which group each is of.
        budget: Most tokens of a micro-batch. A row that is longer stands alone.
        ranks: How many compute at once.
    """
    blocks = [block for group in _groups(groups) for block in _blocks(rows, group, budget)]
    batches = _filled(blocks, budget)
    while len(batches) % ranks and (cut := _cut(rows, batches)) is not None:
        batches = cut
    batches += [EMPTY] * (-len(batches) % ranks)
    return StepPlan(_dealt(batches, ranks))


def _groups(groups: Sequence[Hashable]) -> list[list[int]]:
    """Places of each group's rows, groups in the order of their first row."""
    places: dict[Hashable, list[int]] = {}
    for place, group in enumerate(groups):
        places.setdefault(group, []).append(place)
    return list(places.values())


def _blocks(rows: Sequence[Ids], group: Sequence[int], budget: int) -> list[MicroBatch]:
    """The rows of a group in the order of their tree, cut where the next would not fit."""
    blocks: list[MicroBatch] = []
    before: Ids | None = None
    block = EMPTY
    for place in (group[n] for n in in_order([rows[place] for place in group])):
        row = rows[place]
        kept = 0 if before is None else shared(before, row)
        if block.rows and block.tokens + len(row) - kept > budget:
            blocks.append(block)
            block, kept = EMPTY, 0
        block = block.with_(MicroBatch((place,), len(row) - kept, _cost(kept, len(row))))
        before = row
    return [*blocks, block] if block.rows else blocks


def _cost(start: int, end: int) -> float:
    """Of the tokens of a row from `start` to `end`."""
    own = end - start
    return own + own * (start + end) / 2 / LINEAR


def _filled(blocks: Sequence[MicroBatch], budget: int) -> list[MicroBatch]:
    """Blocks put together, the largest first, each where the least room is left over."""
    batches: list[MicroBatch] = []
    for block in sorted(blocks, key=lambda block: -block.tokens):
        fits = [n for n, batch in enumerate(batches) if batch.tokens + block.tokens <= budget]
        if fits:
            fullest = max(fits, key=lambda n: batches[n].tokens)
            batches[fullest] = batches[fullest].with_(block)
        else:
            batches.append(block)
    return batches


def _cut(rows: Sequence[Ids], batches: list[MicroBatch]) -> list[MicroBatch] | None:
    """One micro-batch more, made of half of the dearest that can be halved; None if none can."""
    several = [batch for batch in batches if len(batch.rows) > 1]
    if not several:
        return None
    dear = max(several, key=lambda batch: batch.cost)
    others = list(batches)
    others.remove(dear)
    return others + halved(rows, dear)


def halved(rows: Sequence[Ids], batch: MicroBatch) -> list[MicroBatch]:
    """A micro-batch of two rows or more as two, about equally dear."""
    order = [batch.rows[n] for n in in_order([rows[place] for place in batch.rows])]
    costs = np.cumsum([_cost(0, len(rows[place])) for place in order])
    middle = int(np.searchsorted(costs, costs[-1] / 2)) + 1
    middle = min(max(middle, 1), len(order) - 1)
    halves = order[:middle], order[middle:]
    return [_whole(rows, half) for half in halves]


def _whole(rows: Sequence[Ids], places: Sequence[int]) -> MicroBatch:
    """These rows, which are in the order of their tree, as one micro-batch."""
    (batch,) = _blocks(rows, places, sum(len(rows[place]) for place in places))
    return batch


def _dealt(batches: Sequence[MicroBatch], ranks: int) -> tuple[tuple[MicroBatch, ...], ...]:
    """Equally many to each rank: the dearest first, each to who has the least to do."""
    each = len(batches) // ranks
    hands: list[list[MicroBatch]] = [[] for _ in range(ranks)]
    for batch in sorted(batches, key=lambda batch: -batch.cost):
        room = [hand for hand in hands if len(hand) < each]
        min(room, key=lambda hand: sum(other.cost for other in hand)).append(batch)
    return tuple(map(tuple, hands))
