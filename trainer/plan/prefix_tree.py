"""Rows of token ids as one prefix tree, laid out in depth-first order.

Rows are sorted, so that each shares its longest beginning with one of its neighbours: the tree
follows from how many tokens each row has in common with the one before it, and no token is looked
up. A token that is followed by two different ones stands twice, once for each: so every position
has a single next token, and its hidden state one prediction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]


def in_order(rows: Sequence[Ids]) -> list[int]:
    """Places of the rows when they are sorted by their tokens, the shorter of two alike first."""
    keys = [row.astype(">u4").tobytes() for row in rows]  # which bytes compare as their numbers do
    return sorted(range(len(rows)), key=keys.__getitem__)


def shared(before: Ids, row: Ids) -> int:
    """How many tokens of a row stand in the tree already, behind the row that is sorted before it.

    All of them where the two rows are equal; otherwise one less than they begin with in common,
    since the last of these is followed by two different tokens.
    """
    width = min(len(before), len(row))
    differ = before[:width] != row[:width]
    common = int(differ.argmax()) if differ.any() else width
    if common == len(before) == len(row):
        return common
    return max(common - 1, 0)


@dataclass(frozen=True, eq=False)
class Branch:
    """What one row adds to the tree.

    Attributes:
        row: Its place among the rows that were given.
        start: The packed position of its first token of its own.
        path: The packed positions of all of its tokens, shape (len(row),). Its last ones are those
            from `start` on.
    """

    row: int
    start: int
    path: npt.NDArray[np.int64]

    @property
    def own(self) -> int:
        """How many tokens stand in the tree for this row first."""
        return int(self.path[-1]) + 1 - self.start if len(self.path) else 0


@dataclass(frozen=True, eq=False)
class PrefixTree:
    """A packed tree of n positions.

    Attributes:
        ids: Token ids, shape (n,).
        positions: How many tokens stand before each on its path, shape (n,).
        ends: Where the subtree of each ends, shape (n,): position q looks at k where
            k <= q < ends[k].
        branches: One for each row that adds tokens, in the order of the tree; a row that is equal
            to another adds none and stands in `paths` only.
        paths: Of each row, in the order in which the rows were given.
    """

    ids: Ids
    positions: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    branches: tuple[Branch, ...]
    paths: tuple[npt.NDArray[np.int64], ...]

    def __len__(self) -> int:
        return len(self.ids)


def pack(rows: Sequence[Ids]) -> PrefixTree:
    """Lay rows out as one tree.

    Args:
        rows: Token ids, each of one token or more.

    Raises:
        ValueError: There is no row, or one is empty.
    """
    if not rows or not all(map(len, rows)):
        raise ValueError("a tree is made of one row or more, and each has a token")
    total = sum(map(len, rows))
    ids, positions = np.empty(total, np.int64), np.empty(total, np.int64)
    ends = np.empty(total, np.int64)
    branches: list[Branch] = []
    paths: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64)] * len(rows)
    n, before, path = 0, np.empty(0, np.int64), np.empty(0, np.int64)
    for place in in_order(rows):
        row = rows[place]
        kept = shared(before, row)
        ends[path[kept:]] = n  # the subtrees that this row does not go on with
        own = len(row) - kept
        ids[n : n + own] = row[kept:]
        positions[n : n + own] = np.arange(kept, len(row))
        path = np.concatenate((path[:kept], np.arange(n, n + own)))
        paths[place] = path
        if own:
            branches.append(Branch(place, n, path))
        n, before = n + own, row
    ends[path] = n
    # Views of half-empty arrays would keep the other half alive.
    return PrefixTree(
        ids[:n].copy(), positions[:n].copy(), ends[:n].copy(), tuple(branches), tuple(paths)
    )


@dataclass(frozen=True, eq=False)
class PackedTargets:
    """The sampled tokens of a tree's rows, row after row; all arrays have the shape (m,).

    Attributes:
        at: The packed position whose prediction each token is.
        labels: Its id.
        row: The place of its row among the rows that were given.
        logprobs: What the engine told, float32.
        temperatures: At which it was sampled, float32.
        advantages: Of its row, or its own, float32.
    """

    at: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    logprobs: npt.NDArray[np.float32]
    temperatures: npt.NDArray[np.float32]
    advantages: npt.NDArray[np.float32]


def targets(rows: Sequence[Any], paths: Sequence[npt.NDArray[np.int64]]) -> PackedTargets:
    """The sampled tokens of rows in a tree.

    Args:
        rows: `feed.rows.Row`s; the first token of each has no prediction and is not masked.
        paths: Of each in the tree.
    """
    at, labels, of_row, logprobs, warm, worth = [], [], [], [], [], []
    for place, (row, path) in enumerate(zip(rows, paths, strict=True)):
        chosen = np.flatnonzero(row.mask[1:]) + 1
        at.append(path[chosen - 1])
        labels.append(row.ids[chosen])
        of_row.append(np.full(len(chosen), place))
        logprobs.append(row.logprobs[chosen])
        ones = np.ones(len(chosen), np.float32)
        warm.append(ones if row.temperatures is None else row.temperatures[chosen])
        same = np.full(len(chosen), row.advantage, np.float32)
        worth.append(same if row.token_advantages is None else row.token_advantages[chosen])
    return PackedTargets(
        at=np.concatenate(at), labels=np.concatenate(labels), row=np.concatenate(of_row),
        logprobs=np.concatenate(logprobs).astype(np.float32),
        temperatures=np.concatenate(warm).astype(np.float32), advantages=np.concatenate(worth),
    )  # fmt: skip
