"""The rules that decide which rows are used, and which batches say nothing. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from odradek.schemas.events import Batch
from odradek.trainer.feed.advantages import PASS_K, WITHIN_GROUP, uninformative
from odradek.trainer.feed.rows import Weigh
from odradek.trainer.feed.sampling import TAKE, Take
from odradek.trainer.feed.shaping import NO_SHAPING, LengthShaping


@dataclass(frozen=True)
class RowRules:
    """The rules that decide which rows are used.

    Attributes:
        rows_per_step: Accepted rows in each optimizer step.
        max_staleness: Steps that a row's oldest tokens may lie behind.
        max_row_tokens: Longer rows are refused; 0 for no bound.
        baseline: Of the advantage.
        scale: Whether advantages are divided by the group's standard deviation.
        pass_k: Samples of which one is to succeed, where the baseline is `pass_at_k`.
        shaping: What the length of a reply costs.
        weigh: Whether every episode weighs 1, or every row.
        take: What is taken of each sequence.
        max_staleness_replayed: The same as `max_staleness` for rows that were drawn again.
        fresh_share: Least share of each step's rows that are fresh.
        corrected: Whether the loss has importance weights. Without them a row that was drawn again
            would be compared with its old sampler by a clip alone, so it is refused.
    """

    rows_per_step: int = 64
    max_staleness: int = 4
    max_staleness_replayed: int = 64
    fresh_share: float = 0.0
    corrected: bool = True
    max_row_tokens: int = 0
    baseline: str = "mean"
    scale: bool = True
    pass_k: int = PASS_K
    shaping: LengthShaping = NO_SHAPING
    weigh: Weigh = "episode"
    take: Take = TAKE

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "RowRules":
        """The rules that settings of the trainer make, by their names; others have their defaults.

        Whoever reads settings in the ledger needs no settings class for it.
        """

        def named(*names: str, **renamed: str) -> dict[str, Any]:
            wanted = {**dict(zip(names, names, strict=True)), **renamed}
            return {to: settings[name] for to, name in wanted.items() if name in settings}

        return cls(
            **named("rows_per_step", "max_staleness", "max_row_tokens", "baseline", "pass_k"),
            **named("weigh", "max_staleness_replayed", "fresh_share"),
            corrected=settings.get("tis", 0) > 0,
            scale=settings.get("scale_advantages", "group") == "group",
            shaping=LengthShaping(
                **named("overlong_tokens", "overlong_buffer", "length_penalty"),
                **named(success="success_reward"),
            ),
            take=Take(**named("temperature", "truncated")),
        )


def why_not(batch: Batch, rules: RowRules = RowRules()) -> str:
    """Why a batch is passed without a look at its episodes, or "".

    Whether it says anything is decided by what the judges gave, not by what lengths cost: DAPO's
    dynamic sampling, arXiv 2503.14476, equation 11.
    """
    if batch.purpose != "train":
        return "eval"
    if not batch.episodes:
        return f"empty:{batch.empty_reason}" if batch.empty_reason else "empty"
    rewards = np.array([pointer.reward for pointer in batch.episodes], dtype=np.float64)
    equal = uninformative(
        rewards, baseline=rules.baseline, k=rules.pass_k, success=rules.shaping.success
    )
    if batch.children_differ:
        return ""
    flagged = batch.zero_variance and rules.baseline in WITHIN_GROUP
    return "zero_variance" if flagged or equal else ""
