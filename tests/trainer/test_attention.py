"""Attention over a packed tree is attention over each row by itself."""

import numpy as np
import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention
from transformers import Qwen3Config, Qwen3ForCausalLM

from odradek.trainer.bench import batch_of, measure
from odradek.trainer.plan.prefix_tree import pack
from odradek.trainer.step import attention
from odradek.trainer.step.packing import tensors_of

pytestmark = pytest.mark.torch


def random_tree(seed, rows=12, longest=260):
    """Rows that branch anywhere, some of them equal, of any length."""
    random = np.random.default_rng(seed)
    made = [random.integers(0, 90, int(random.integers(1, longest)))]
    for _ in range(rows - 1):
        parent = made[random.integers(len(made))]
        kept = parent[: random.integers(0, len(parent) + 1)]
        made.append(np.append(kept, random.integers(0, 90, int(random.integers(1, longest // 3)))))
    return made, pack(made)


def by_path(tree, rows, reach):
    """Who looks at whom, written down row by row; bool, shape (n, n)."""
    seen = np.zeros((len(tree), len(tree)), bool)
    for path in tree.paths:
        for depth, q in enumerate(path):
            seen[q, path[max(depth + 1 - reach, 0) : depth + 1]] = True
    return seen


TREES = [(seed, reach) for seed in range(6) for reach in (1, 5, 40, 10_000)]


@pytest.mark.parametrize(("seed", "reach"), TREES)
def test_a_token_looks_back_along_its_own_rows_as_far_as_its_window(seed, reach):
    """In the dense mask, in each segment, and in FlexAttention's function and blocks."""
    rows, tree = random_tree(seed)
    expected = by_path(tree, rows, reach)
    assert (expected == attention.dense_mask(tree, reach)[0, 0].numpy()).all()
    for branch in tree.branches:
        segment = attention.segment_of(branch, reach)
        along = expected[segment.start : segment.end][:, segment.path]
        length = len(segment.path)
        whole = torch.ones(
            length, length, dtype=torch.bool
        ).tril()  # what a causal call lets through
        mask = whole[segment.start - segment.end :] if segment.mask is None else segment.mask
        assert (along == mask.numpy()).all()
        assert along.sum() == expected[segment.start : segment.end].sum()
    mask = attention.block_mask(tree, reach, torch.device("cpu"))
    assert (expected == flexible(mask, len(tree))).all()


def flexible(mask, n):
    """What FlexAttention would let through: blocks that are full, and in others its function."""
    at = torch.arange(-(-n // 128) * 128)
    allowed = mask.mask_mod(0, 0, at[:, None], at[None, :]).numpy()
    seen = np.zeros_like(allowed)
    for counts, places, full in (
        (mask.kv_num_blocks, mask.kv_indices, False),
        (mask.full_kv_num_blocks, mask.full_kv_indices, True),
    ):
        for q, count in enumerate(counts[0, 0].tolist()):
            for k in places[0, 0, q, :count].tolist():
                block = np.s_[128 * q : 128 * q + 128, 128 * k : 128 * k + 128]
                seen[block] = True if full else allowed[block]
    return seen[:n, :n]


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("reach", [7, 10_000])
def test_flex_attention_over_the_blocks_is_dense_attention(reach):
    """Its forward pass runs without a GPU; n is no multiple of 128."""
    _, tree = random_tree(1)
    assert len(tree) % 128
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, len(tree), 16)
    mask = attention.block_mask(tree, reach, torch.device("cpu"))
    dense = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=attention.dense_mask(tree, reach)
    )
    assert torch.allclose(dense, flex_attention(query, key, value, block_mask=mask), atol=2e-6)


def test_a_long_row_takes_a_mask_of_its_blocks_and_not_of_its_tokens():
    """131,072 tokens: 10 bytes for each pair of them would be 172 GB."""
    tree = pack([np.arange(131_072)])
    mask = attention.block_mask(tree, 10**9, torch.device("cpu"))
    tensors = [value for value in vars(mask).values() if isinstance(value, torch.Tensor)]
    assert sum(value.nbytes for value in tensors) < 42 * 2**20
    assert 1024 == int(mask.kv_num_blocks.sum())
    assert 1024 * 1023 // 2 == int(mask.full_kv_num_blocks.sum())


@pytest.mark.parametrize("kind", ["dense", "segments"])
@pytest.mark.parametrize("window", [None, 9])
@pytest.mark.parametrize("prompt", [20, 5])
def test_a_trees_hidden_states_are_those_of_its_rows(monkeypatch, kind, window, prompt):
    """With both masks, with layers that look back over 9 tokens and others, to fp32 accuracy.

    And where most of a row is its own, which needs no mask.
    """
    monkeypatch.setattr(attention, "WORTHWHILE", 0 if kind == "segments" else 10**9)
    rows = batch_of(group=4, turns=2, prompt=prompt, sampled=5, between=7)
    model = windowed(window)
    packed = tensors_of(rows, torch.device("cpu"))
    attention.register()
    with torch.no_grad():
        model.set_attn_implementation("sdpa")
        alone = torch.cat(
            [model.model(input_ids=torch.tensor(r.ids)[None]).last_hidden_state[0][
                torch.tensor(r.mask.nonzero()[0] - 1)] for r in rows]
        )  # fmt: skip
        model.set_attn_implementation(attention.NAME)
        together = model.model(
            input_ids=packed.ids[None], position_ids=packed.positions[None], use_cache=False,
            tree_mask=packed.mask,
        ).last_hidden_state[0][packed.targets.at]  # fmt: skip
    assert torch.allclose(alone, together, atol=2e-6)


def windowed(window):
    """A random Qwen3 of two layers, one of which looks back over a window."""
    torch.manual_seed(0)
    kinds = ["full_attention", "full_attention" if window is None else "sliding_attention"]
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=500, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, head_dim=16, layer_types=kinds,
            use_sliding_window=window is not None, sliding_window=window,
        )
    )  # fmt: skip


def test_the_measure_has_the_keys_that_programs_rely_on():
    """A small one, for its shape."""
    found = measure(
        group=2, turns=2, prompt=8, sampled=2, between=3, hidden=32, layers=1, repeats=1
    )
    assert {"per_turn", "merged", "tree"} == set(found["tokens_per_s"])
    assert found["speedup"] > 0
    assert {"plan_s_per_million", "peak_mb"} <= found.keys()
    assert {"per_turn": 50, "merged": 30, "tree": 23} == found["forwarded_tokens"]
