"""Sampling from a causal language model: one batch, one key-value cache, one loop.

Rows are padded on the left and carry their own positions, so a row's log probabilities do not
depend on who shares the batch with it (up to the order of floating-point sums). `generate()` of
transformers costs several milliseconds a token on a tiny model; this loop is the part of it that
is needed here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache

from odradek.trainer.engine.adapters import LoadedAdapter, applied


@dataclass(frozen=True)
class SampleRequest:
    """One row to sample.

    Attributes:
        ids: Prompt token ids, at least one.
        temperature: 0 takes the likeliest token.
        max_tokens: Sampled tokens at most, the end token included.
        top: How many of the likeliest tokens to list at each place.
        adapter: With which it is sampled; None for the model itself.
    """

    ids: Sequence[int]
    temperature: float = 1.0
    max_tokens: int = 64
    top: int = 0
    adapter: LoadedAdapter | None = None


@dataclass
class SampleResult:
    """One row's completion.

    Attributes:
        ids: Sampled token ids, with the end token if there was one.
        logprobs: Of each, in nats, after the temperature (at temperature 0: of the raw logits).
        finish_reason: "stop" or "length".
        top: The likeliest tokens at each place, with their log probabilities; as many as wanted.
    """

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: str = "length"
    top: list[list[tuple[int, float]]] = field(default_factory=list)


class Sampler:
    """Samples batches from one model with one seeded generator."""

    def __init__(self, model: Any, *, pad_id: int, end_ids: Sequence[int], seed: int) -> None:
        self.model = model
        self._pad = pad_id
        self._ends = torch.tensor(sorted(end_ids), device=model.device)
        self._generator = torch.Generator(device=model.device).manual_seed(seed)

    @torch.inference_mode()
    def sample(self, rows: Sequence[SampleRequest]) -> list[SampleResult]:
        """Sample every row to its end token or its limit; results in the order of the rows.

        All of them are sampled with the adapter of the first.
        """
        with applied(rows[0].adapter):
            return self._sampled(rows)

    def _sampled(self, rows: Sequence[SampleRequest]) -> list[SampleResult]:
        out = [SampleResult() for _ in rows]
        device = self.model.device
        lengths = torch.tensor([len(row.ids) for row in rows], device=device)
        width = int(lengths.max())
        ids = torch.full((len(rows), width), self._pad, device=device)
        for i, row in enumerate(rows):
            ids[i, width - len(row.ids) :] = torch.tensor(list(row.ids), device=device)
        mask = torch.arange(width, device=device)[None] >= width - lengths[:, None]
        positions = (torch.arange(width, device=device)[None] - (width - lengths)[:, None]).clamp(0)
        temperature = torch.tensor([row.temperature for row in rows], device=device)
        limits = torch.tensor([row.max_tokens for row in rows], device=device)
        alive = torch.arange(len(rows), device=device)
        cache = DynamicCache(config=self.model.config)
        done = 0
        while True:
            logits = self.model(
                input_ids=ids,
                attention_mask=mask.long(),
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            chosen, every = self._choose(logits.float(), temperature)
            logprobs = every.gather(1, chosen[:, None])[:, 0]
            done += 1
            stopped = torch.isin(chosen, self._ends)
            drawn = (alive.tolist(), chosen.tolist(), logprobs.tolist(), stopped.tolist())
            for place, (row, token, logprob, stop) in enumerate(zip(*drawn, strict=True)):
                out[row].ids.append(token)
                out[row].logprobs.append(logprob)
                if rows[row].top:
                    out[row].top.append(_likeliest(every[place], rows[row].top))
                if stop:
                    out[row].finish_reason = "stop"
            going = ~stopped & (limits > done)
            if not bool(going.any()):
                return out
            ids, positions = chosen[:, None], positions[:, -1:] + 1
            mask = torch.nn.functional.pad(mask, (0, 1), value=True)
            if int(going.sum()) < len(going):
                keep = going.nonzero()[:, 0]
                cache.batch_select_indices(keep)
                ids, positions, mask = ids[keep], positions[keep], mask[keep]
                temperature, limits, alive = temperature[keep], limits[keep], alive[keep]

    def _choose(
        self, logits: torch.Tensor, temperature: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A token a row, and the logarithm of the distribution that it was drawn from."""
        greedy = temperature <= 0
        scale = torch.where(greedy, torch.ones_like(temperature), temperature)
        logprobs = torch.log_softmax(logits / scale[:, None], dim=-1)
        drawn = torch.multinomial(logprobs.exp(), 1, generator=self._generator)[:, 0]
        chosen = torch.where(greedy, logits.argmax(-1), drawn)
        return chosen, logprobs


def _likeliest(logprobs: torch.Tensor, n: int) -> list[tuple[int, float]]:
    """The n likeliest tokens of a distribution, the likeliest first."""
    values, tokens = logprobs.topk(min(n, len(logprobs)))
    return list(zip(tokens.tolist(), values.tolist(), strict=True))
