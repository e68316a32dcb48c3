"""Part a: FlexAttention over trees against dense attention, and what their masks cost."""

import numpy as np
import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from odradek.trainer.plan.prefix_tree import pack
from odradek.trainer.step import attention
from tests.card.clock import Clock

CLOSE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
"""How far apart the two may be, relative to the largest number."""
EVERYTHING = 10**9


def tree_of(tokens: int):
    """Four rows of which each shares a quarter of the tree."""
    random = np.random.default_rng(0)
    shared = random.integers(0, 90, tokens // 4)
    own = (tokens - len(shared)) // 4
    rows = [np.append(shared, random.integers(0, 90, own)) for _ in range(4)]
    return pack(rows)


def compared(device, head: int, dtype, tokens: int) -> dict:
    """Forward, and backward where the device has it."""
    tree = tree_of(tokens)
    torch.manual_seed(0)
    parts = torch.randn(3, 1, 2, len(tree), head, device=device)
    mask = attention.block_mask(tree, EVERYTHING, device)
    dense = attention.dense_mask(tree, EVERYTHING).to(device)
    results = []
    backward = device.type == "cuda"
    for flexible in (True, False):
        query, key, value = (part.detach().to(dtype).requires_grad_(backward) for part in parts)
        if not flexible:
            out = torch.nn.functional.scaled_dot_product_attention(
                query.float(), key.float(), value.float(), attn_mask=dense
            )
        elif backward:
            out = attention._flex(query, key, value, mask, None)
        else:
            out = flex_attention(query, key, value, block_mask=mask)
        if backward:
            (out.float() * parts[0]).sum().backward()
        results.append([out] + [part.grad for part in (query, key, value) if backward])
    off = [
        float((one.float() - other.float()).abs().max() / other.float().abs().max())
        for one, other in zip(*results, strict=True)
    ]
    return {
        "tokens": len(tree),
        "forward_off": off[0],
        "gradient_off": max(off[1:]) if backward else None,
        "holds": max(off) <= CLOSE[dtype],
    }


def mask_memory(device, tokens: int) -> dict:
    """Of our block mask, and of the one that FlexAttention makes of all pairs."""
    tree = tree_of(tokens)
    ours, theirs = Clock(device), Clock(device)
    with ours.block():
        attention.block_mask(tree, EVERYTHING, device)
    ends, positions = (torch.from_numpy(v).to(device) for v in (tree.ends, tree.positions))
    allowed = attention._mask_function(ends, positions, EVERYTHING)
    with theirs.block():
        create_block_mask(allowed, None, None, len(tree), len(tree), device=device)
    return {
        "tokens": len(tree),
        "ours": {"seconds": round(ours.seconds, 4), "peak_mb": ours.peak_mb},
        "eager": {"seconds": round(theirs.seconds, 4), "peak_mb": theirs.peak_mb},
    }


def measure(device, sizes):
    """(name, figures) of each comparison."""
    torch.set_float32_matmul_precision("highest")
    for dtype in CLOSE:
        for head in sizes.heads:
            name = f"{str(dtype).removeprefix('torch.')}, head of {head}"
            yield name, compared(device, head, dtype, sizes.tokens[0])
    yield "mask", mask_memory(device, sizes.tokens[1])
