"""From the feed's rows to the tensors of a forward pass."""

import queue
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from odradek.trainer.errors import RowsEnded
from odradek.trainer.feed.rollout_worker import POLL_S, LogRolloutWorker
from odradek.trainer.feed.rows import Row
from odradek.trainer.plan.prefix_tree import pack, targets
from odradek.trainer.step.attention import TreeMask
from odradek.trainer.step.logprobs import Targets
from odradek.trainer.step.losses import StepTotals
from odradek.trainer.step.metrics import RowFacts

Tensor = torch.Tensor


class StepRows(torch.utils.data.IterableDataset[list[Row]]):
    """The rows of each optimizer step, until the feed ends; a remainder is left alone."""

    def __init__(self, feed: LogRolloutWorker, rows_per_step: int) -> None:
        self._feed = feed
        self._rows_per_step = rows_per_step

    def __iter__(self) -> Iterator[list[Row]]:
        rows: list[Row] = []
        while True:
            try:
                self._feed.check_health()
            except RowsEnded:
                return
            try:
                rows.append(self._feed.rollout_buffer.get(timeout=POLL_S))
            except queue.Empty:
                continue
            if len(rows) == self._rows_per_step:
                yield rows
                rows = []


def loader_of(
    feed: LogRolloutWorker, rows_per_step: int
) -> "torch.utils.data.DataLoader[list[Row]]":
    """A loader whose batches are the rows of one step each.

    A plain one reads nothing ahead. Accelerate's would hold a step back to see whether another
    follows, which makes rows staler and may wait for rows that nobody will send.
    """
    return torch.utils.data.DataLoader(
        StepRows(feed, rows_per_step), batch_size=None, num_workers=0, collate_fn=list
    )


@dataclass(frozen=True, eq=False)
class PackedRows:
    """Rows of a micro-batch as tensors; n packed tokens, m sampled ones, r rows.

    Attributes:
        ids: Shape (n,).
        positions: Of each token in its rows, shape (n,).
        mask: Who looks at whom.
        targets: The sampled tokens.
        row: Which row each of them is of, shape (m,).
        old_logprobs: What the engine told of them, float32, shape (m,).
        advantages: Float32, shape (m,).
        weights: Of each row, with its importance, float32, shape (r,).
        facts: Of the rows, for the metrics.
    """

    ids: Tensor
    positions: Tensor
    mask: TreeMask
    targets: Targets
    row: Tensor
    old_logprobs: Tensor
    advantages: Tensor
    weights: Tensor
    facts: RowFacts


def tensors_of(rows: Sequence[Row], device: torch.device) -> PackedRows:
    """Pack rows and move them to a device."""
    tree = pack([row.ids for row in rows])
    sampled = targets(rows, tree.paths)

    def moved(values: object) -> Tensor:
        return torch.as_tensor(values).to(device)

    def of_rows(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device)

    return PackedRows(
        ids=moved(tree.ids),
        positions=moved(tree.positions),
        mask=TreeMask(tree, device),
        targets=Targets(moved(sampled.at), moved(sampled.labels), moved(sampled.temperatures)),
        row=moved(sampled.row),
        old_logprobs=moved(sampled.logprobs),
        advantages=moved(sampled.advantages),
        weights=of_rows([row.weight * row.importance for row in rows]),
        facts=RowFacts(
            staleness=of_rows([row.staleness for row in rows]),
            rewards=of_rows([row.reward for row in rows]),
            tokens=len(tree),
        ),
    )


def totals_of(rows: Sequence[Row]) -> StepTotals:
    """What the shares of micro-batches are divided by.

    A row's importance is not in it: else a step of replayed rows alone would weigh as much as one
    of fresh rows.
    """
    return StepTotals(
        tokens=sum(row.weight * row.sampled for row in rows),
        rows=sum(row.weight for row in rows),
    )
