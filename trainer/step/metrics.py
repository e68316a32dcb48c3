"""A step's metrics: sums over its micro-batches, as the ledger records them."""

import math
from typing import Final, NamedTuple

import numpy as np
import torch

from odradek.trainer.feed.cursor import ConsumedRows
from odradek.trainer.losses.corrections import beyond
from odradek.trainer.step.losses import LossInputs, LossOptions, clips, log_ratio

STALENESS: Final = ((0, ""), (1, "_1"), (2, "_2_3"), (4, "_4_7"), (8, "_8_up"))
"""From which staleness on a row's tokens are measured under which name, behind `mismatch_k3`."""


class RowFacts(NamedTuple):
    """The rows of a micro-batch; tensors have the shape (r,)."""

    staleness: torch.Tensor
    """In optimizer steps, float32."""
    rewards: torch.Tensor
    """Of each row's sample, float32."""
    tokens: int
    """How many were computed."""


class StepMetrics:
    """Sums of one optimizer step; `finish` reads and clears them.

    Engine against trainer is k3 = exp(d) - d - 1 over tokens, d = log p - log q, in buckets of the
    staleness of their rows. On rows whose weights were still in force (staleness 0) every
    difference is one of computation; on older ones it is that and what training has changed since.
    A bucket without a token was not measured: it has no metric, rather than a 0.

    Args:
        name: Of the loss, whose clips are counted.
    """

    def __init__(self, name: str = "dapo") -> None:
        self._name = name
        self.grad_norm = 0.0
        self.grad_clipped = False
        """Whether the gradient was longer than it may be, and was shortened."""
        self.learning_rate = 0.0
        self.forget()

    def forget(self) -> None:
        """Begin a step anew."""
        self.forwarded = 0
        self._sums: dict[str, float] = {}
        self._staleness: list[float] = []
        self._mismatch_max: float | None = None

    @property
    def loss(self) -> float:
        """The loss of the micro-batches that were added."""
        return self._sums.get("loss", 0.0)

    @torch.no_grad()
    def add(
        self,
        terms: LossInputs,
        loss: torch.Tensor,
        entropy: torch.Tensor,
        rows: RowFacts,
        shape: LossOptions,
    ) -> None:
        """Add a micro-batch.

        Args:
            terms: Its sampled tokens.
            loss: Its share of the step's loss.
            entropy: Of the policy at each of them, in nats, shape (m,).
            rows: What is known of its rows.
            shape: The clips in force.
        """
        apart = (terms.logprobs - terms.old_logprobs).float()
        distance = log_ratio(terms.logprobs, terms.old_logprobs).float()
        ratio = distance.exp()
        k3 = ratio - 1 - distance
        low, high = clips(self._name, terms, shape)
        batch_sums = {
            "loss": loss,
            "sampled": distance.new_tensor(len(distance)),
            "ratio": ratio.sum(),
            "kl": k3.sum(),
            "entropy": entropy.sum(),
            "low": low.sum(),
            "high": high.sum(),
        }
        if shape.tis > 0:
            batch_sums["capped"] = beyond(terms, shape).sum()
        self._staleness += rows.staleness.tolist()
        batch_sums["reward"] = rows.rewards.sum()
        batch_sums |= self._mismatch(rows.staleness[terms.row], apart, k3)
        self.forwarded += rows.tokens
        # In one go: a device is waited for once.
        values = torch.stack([value.double() for value in batch_sums.values()]).tolist()
        for name, value in zip(batch_sums, values, strict=True):
            self._sums[name] = self._sums.get(name, 0.0) + value

    def _mismatch(
        self, staleness: torch.Tensor, apart: torch.Tensor, k3: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """By bucket, how many tokens and the sum of their k3; all tensors have the shape (m,)."""
        sums = {}
        ends = [begin for begin, _ in STALENESS[1:]] + [math.inf]
        for (begin, name), end in zip(STALENESS, ends, strict=True):
            there = (staleness >= begin) & (staleness < end)
            if not bool(there.any()):
                continue
            sums[f"measured{name}"] = there.sum()
            sums[f"mismatch{name}"] = k3[there].sum()
            if begin == 0:
                most = float(apart[there].abs().max().item())
                self._mismatch_max = max(self._mismatch_max or 0.0, most)
        return sums

    def finish(self, passed: ConsumedRows, success_reward: float) -> dict[str, float]:
        """The metrics of the step, all finite, and everything cleared for the next one."""
        sums = self._sums
        sampled = max(sums.get("sampled", 0.0), 1.0)
        rows = max(len(self._staleness), 1)
        rewards = np.array(passed.rewards, dtype=np.float64)
        metrics = {
            "loss": sums.get("loss", 0.0),
            "grad_norm": self.grad_norm,
            "grad_clipped": float(self.grad_clipped),
            "learning_rate": self.learning_rate,
            "rows": float(len(self._staleness)),
            "tokens": float(self.forwarded),
            "sampled_tokens": sums.get("sampled", 0.0),
            "row_reward_mean": sums.get("reward", 0.0) / rows,
            "staleness_mean": float(np.mean(self._staleness)) if self._staleness else 0.0,
            "staleness_max": max(self._staleness, default=0.0),
            "ratio_mean": sums.get("ratio", 0.0) / sampled,
            "kl": sums.get("kl", 0.0) / sampled,
            "entropy": sums.get("entropy", 0.0) / sampled,
            "clip_low": sums.get("low", 0.0) / sampled,
            "clip_high": sums.get("high", 0.0) / sampled,
            "batches": float(passed.batches),
            "equal_groups": float(sum(r.reason == "zero_variance" for r in passed.refused)),
            "samples": float(len(rewards)),
            "truncated": float(passed.truncated),
            "altered_tokens": float(passed.altered),
        }
        if self._mismatch_max is not None:
            metrics["mismatch_max"] = self._mismatch_max
        for _, name in STALENESS:
            if tokens := sums.get(f"measured{name}"):
                metrics[f"mismatch_k3{name}"] = sums[f"mismatch{name}"] / tokens
        if "capped" in sums:
            metrics["tis_capped"] = sums["capped"] / sampled
        if len(rewards):
            with np.errstate(over="ignore"):  # what leaves float64 is left out below
                metrics["reward_mean"] = float(rewards.mean())
            metrics["success"] = float((rewards >= success_reward).mean())
        self.forget()
        return {name: value for name, value in metrics.items() if math.isfinite(value)}
