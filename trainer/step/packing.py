"""TRL's pipeline from rows to packed micro-batches, ending where the feed says so."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import torch
from trl.experimental.async_grpo.async_grpo_trainer import (
    DataCollatorForRollout,
    FixedCountBatcher,
    RolloutQueueDataset,
)

from odradek.trainer.errors import RowsEnded
from odradek.trainer.feed.rollout_worker import POLL_S, LogRolloutWorker
from odradek.trainer.step.losses import StepTotals
from odradek.trainer.step.trl_config import OUT_OF_REACH

FACTS: Final = ("staleness", "reward", "weight")
"""What `row_facts` of a micro-batch holds, shape (1, n_rows, 3); staleness -1 for no row."""


class UntilEnded(torch.utils.data.IterableDataset):  # type: ignore[type-arg] # it is generic for types only
    """TRL's batches of rows, ending where the feed says so instead of blocking for ever."""

    def __init__(self, inner: FixedCountBatcher) -> None:
        self._inner = inner

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self._inner
        except RowsEnded:
            return


class RowCollator(DataCollatorForRollout):  # type: ignore[misc] # TRL is untyped
    """TRL's packer, which also says what we know of each row (FACTS) and token (temperature)."""

    def torch_call(self, examples: list[Any]) -> dict[str, Any]:
        """Pack a micro-batch; see TRL."""
        batch: dict[str, Any] = super().torch_call(examples)
        (rows,) = examples
        width = max(len(row.samples) for row in rows)
        batch["row_facts"] = torch.tensor(
            [
                [[s["metrics"][fact] for fact in FACTS] for s in row.samples]
                + [[-1.0, 0.0, 0.0]] * (width - len(row.samples))
                for row in rows
            ]
        )
        # TRL lays out the sampled tokens of each row in order, row after row.
        warm = [s["metrics"].temperatures for row in rows for s in row.samples]
        batch["temperatures"] = torch.from_numpy(np.concatenate(warm))[None]
        return batch


def whole_of(batches: Sequence[Any]) -> StepTotals:
    """The optimizer step that these micro-batches make."""
    tokens = rows = 0.0
    for batch in batches:
        staleness, _, weights = batch["row_facts"][0].double().unbind(-1)
        trained = int((batch["token_index"] >= 0).sum())
        tokens += float(weights[batch["segment_id"][0, :trained]].sum())
        rows += float(weights[staleness >= 0].sum())
    return StepTotals(tokens, rows)


def packed(
    feed: LogRolloutWorker, *, micro_rows: int, pad_id: int, metrics: Any
) -> tuple[RolloutQueueDataset, "torch.utils.data.DataLoader[Any]"]:
    """TRL's dataset over the feed's queue, and a loader of packed micro-batches from it.

    A plain loader reads nothing ahead; accelerate's would hold a batch back to see whether another
    follows, which costs a step of staleness and can wait for rows that nobody will send.
    """
    rows = RolloutQueueDataset(
        rollout_queue=feed.rollout_buffer,
        model_version_fn=lambda: 0,
        check_health_fn=feed.check_health,
        stale_after_s=0.0,
        metrics=metrics,
        max_staleness=OUT_OF_REACH,
        poll_interval_s=POLL_S,
    )
    loader: torch.utils.data.DataLoader[Any] = torch.utils.data.DataLoader(
        UntilEnded(FixedCountBatcher(rows, 1, micro_rows)),
        batch_size=1,
        collate_fn=RowCollator(pad_id, 1),
        num_workers=0,
    )
    return rows, loader
