"""The cost of a training step: the same batch per turn, merged, and as a prefix tree.

Tokens per second count the batch's tokens as single turns in all three modes, so they compare how
fast the same training is done. Peers' trainers take one row per turn. On a CPU the seconds are
those that its core spent on the step.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from odradek.trainer.feed.rows import Row, per_turn, tokens
from odradek.trainer.measure.memory import MemoryMeter
from odradek.trainer.plan.micro_batches import MicroBatch, plan
from odradek.trainer.plan.prefix_tree import pack
from odradek.trainer.step import attention
from odradek.trainer.step.losses import LossInputs, LossOptions, StepTotals, policy_loss
from odradek.trainer.step.packing import tensors_of

MODES: Final = ("per_turn", "merged", "tree")
AT_ONCE: Final = {"per_turn": 1, "merged": 3, "tree": 3}
"""How often a mode is measured in a repeat: a short one is disturbed by more."""


def batch_of(*, group: int, turns: int, prompt: int, sampled: int, between: int) -> list[Row]:
    """Rows of one group: a shared prompt, then sampled and environment tokens in turns."""
    random = np.random.default_rng(0)
    length = prompt + turns * sampled + (turns - 1) * between
    shared = random.integers(0, 500, prompt)
    rows = []
    for index in range(group):
        ids = np.concatenate([shared, random.integers(0, 500, length - prompt)])
        mask = np.zeros(length, dtype=np.bool_)
        for turn in range(turns):
            start = prompt + turn * (sampled + between)
            mask[start : start + sampled] = True
        logprobs = np.where(mask, -6.2, 0.0).astype(np.float32)
        worth = 1.0 if index % 2 else -1.0
        rows.append(Row(ids, mask, logprobs, worth, worth, 1, 1, 0, index, f"e{index}"))
    return rows


def _model_of(hidden: int, layers: int, length: int, device: str, dtype: torch.dtype) -> Any:
    """A random Qwen3 of a size."""
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=500, hidden_size=hidden, intermediate_size=4 * hidden,
            num_hidden_layers=layers, num_attention_heads=max(hidden // 32, 1),
            num_key_value_heads=max(hidden // 32, 1), head_dim=32,
            max_position_embeddings=length, tie_word_embeddings=False,
        )
    )  # fmt: skip
    return model.to(device=device, dtype=dtype)


def _step(model: Any, hidden: torch.Tensor, rows: Sequence[Row], at: torch.Tensor) -> None:
    """Loss and gradient from hidden states at the predecessors of the sampled tokens."""
    device = hidden.device
    labels = torch.cat([torch.tensor(row.ids[row.mask]) for row in rows]).to(device)
    old = torch.cat([torch.tensor(row.logprobs[row.mask]) for row in rows]).to(device)
    lengths = torch.tensor([row.sampled for row in rows])
    row = torch.repeat_interleave(torch.arange(len(rows)), lengths).to(device)
    worth = torch.tensor([r.advantage for r in rows], device=device)[row]
    logits = model.lm_head(hidden[at]).float()
    logprobs = logits.log_softmax(-1).gather(1, labels[:, None])[:, 0]
    terms = LossInputs(logprobs, old, worth, row, len(rows))
    loss = policy_loss("dapo", terms, StepTotals(len(labels), len(rows)), LossOptions())
    loss.backward()  # type: ignore[no-untyped-call] # torch has no type for it


def _alike(rows: Sequence[Row], budget: int) -> Iterator[list[Row]]:
    """Rows of equal length, so that nothing is padded, of as many tokens as a pass may have."""
    by_length: dict[int, list[Row]] = {}
    for row in rows:
        by_length.setdefault(len(row.ids), []).append(row)
    for length, same in by_length.items():
        count = max(budget // length, 1)
        yield from (same[start : start + count] for start in range(0, len(same), count))


def _train_rows(model: Any, rows: Sequence[Row], budget: int) -> None:
    """Forward and backward over rows."""
    model.set_attn_implementation("sdpa")
    for same in _alike(rows, budget):
        ids = torch.tensor(np.stack([row.ids for row in same])).to(model.device)
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
        before = torch.tensor(np.stack([np.append(row.mask[1:], False) for row in same]))
        _step(model, hidden, same, before.to(model.device))


def _train_tree(model: Any, rows: Sequence[Row], budget: int) -> None:
    """Forward and backward over prefix trees of the rows of a group."""
    attention.register()
    model.set_attn_implementation(attention.NAME)
    for batch in _planned(rows, budget):
        together = [rows[place] for place in batch.rows]
        packed = tensors_of(together, model.device)
        hidden = model.model(
            input_ids=packed.ids[None],
            position_ids=packed.positions[None],
            use_cache=False,
            tree_mask=packed.mask,
        ).last_hidden_state[0]
        _step(model, hidden, together, packed.targets.at)


def _planned(rows: Sequence[Row], budget: int) -> tuple[MicroBatch, ...]:
    return plan([row.ids for row in rows], [0] * len(rows), budget=budget).ranks[0]


def _seconds(work: Callable[[], None], model: Any) -> float:
    """Of the device's own time: on a CPU of the core's, so that its other work does not count."""
    model.zero_grad()
    on_cuda = model.device.type == "cuda"
    clock = time.perf_counter if on_cuda else time.process_time
    if on_cuda:
        torch.cuda.synchronize()
    began = clock()
    work()
    if on_cuda:
        torch.cuda.synchronize()
    return clock() - began


def _faster(slow: Sequence[float], fast: Sequence[float]) -> float:
    """How many times as fast: the median over repeats, each of which compares what it measured."""
    return round(float(np.median(np.array(slow) / np.array(fast))), 2)


def _plan_seconds() -> float:
    """How long a million tokens take to plan and pack: 16 groups of 8 rows, a quarter shared."""
    random = np.random.default_rng(0)
    rows: list[npt.NDArray[np.int64]] = []
    for _ in range(16):
        prompt = random.integers(0, 150_000, 2000)
        rows += [np.append(prompt, random.integers(0, 150_000, 6000)) for _ in range(8)]
    groups = [place // 8 for place in range(len(rows))]
    began = time.perf_counter()
    for batch in plan(rows, groups, budget=32_768).ranks[0]:
        pack([rows[place] for place in batch.rows])
    return (time.perf_counter() - began) * 1e6 / sum(map(len, rows))


def measure(
    *,
    group: int = 8,
    turns: int = 10,
    prompt: int = 300,
    sampled: int = 30,
    between: int = 60,
    hidden: int = 128,
    layers: int = 2,
    repeats: int = 5,
    micro_tokens: int = 4096,
    device: str = "cpu",
) -> dict[str, Any]:
    """Time each mode `repeats` times, in alternating order; medians and every repeat.

    A forward pass has at most `micro_tokens` tokens, whatever the mode.

    Returns:
        `tokens_per_s` {per_turn, merged, tree} and `speedup` (merged over per_turn), with
        `tree_speedup`, the forwarded tokens of each mode, and all repeats in seconds;
        `plan_s_per_million`, the median seconds that planning and packing take for a million
        tokens, and `peak_mb`, the most memory of the whole measurement.
    """
    torch.set_num_threads(1)
    memory = MemoryMeter(torch.device(device))
    rows = batch_of(group=group, turns=turns, prompt=prompt, sampled=sampled, between=between)
    singles = [single for row in rows for single in per_turn(row)]
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    model = _model_of(hidden, layers, len(rows[0].ids), device, dtype)
    work: dict[str, Callable[[], None]] = {
        "per_turn": lambda: _train_rows(model, singles, micro_tokens),
        "merged": lambda: _train_rows(model, rows, micro_tokens),
        "tree": lambda: _train_tree(model, rows, micro_tokens),
    }
    for mode in MODES[1:]:  # the kernels' first calls
        _seconds(work[mode], model)
    seconds: dict[str, list[float]] = {mode: [] for mode in MODES}
    for turn in range(repeats):
        order = MODES if turn % 2 == 0 else MODES[::-1]
        for mode in order:
            once = [_seconds(work[mode], model) for _ in range(AT_ONCE[mode])]
            seconds[mode].append(float(np.median(once)))
    total = tokens(singles)
    rate = {mode: total / float(np.median(seconds[mode])) for mode in MODES}
    return {
        "tokens_per_s": {mode: round(rate[mode], 1) for mode in MODES},
        "speedup": _faster(seconds["per_turn"], seconds["merged"]),
        "tree_speedup": _faster(seconds["per_turn"], seconds["tree"]),
        "plan_s_per_million": round(float(np.median([_plan_seconds() for _ in MODES])), 4),
        "peak_mb": round(memory.read()["peak_memory_mb"], 1),
        "forwarded_tokens": {
            "per_turn": total,
            "merged": tokens(rows),
            "tree": sum(batch.tokens for batch in _planned(rows, micro_tokens)),
        },
        "batch": {
            "group": group, "turns": turns, "prompt": prompt, "sampled": sampled,
            "between": between, "hidden": hidden, "layers": layers, "device": device,
            "micro_tokens": micro_tokens,
        },
        "repeats_s": {mode: [round(s, 4) for s in seconds[mode]] for mode in MODES},
    }  # fmt: skip
