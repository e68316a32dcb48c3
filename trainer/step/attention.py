"""Attention over a packed tree of rows, where TRL would fetch a FlashAttention-3 kernel from a hub.

TRL lays several rows out as one prefix tree in depth-first order, so that shared beginnings are
computed once. In that order a token's descendants directly follow it: token q may look at token k
exactly if k <= q < end(k), where end(k) is where k's subtree ends. On a CPU this is one mask for
SDPA where the tree is small, and one call for each segment where it is large; on a GPU a mask
function for FlexAttention, which skips what is masked block by block.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface
from trl.experimental.async_grpo.packing import TREE_ATTENTION

Tensor = torch.Tensor
NAME: Final = str(TREE_ATTENTION)
"""The name under which TRL's trainer asks for its kernel."""


def subtree_ends(kv_index: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor) -> Tensor:
    """For each packed position the end of its subtree, shape (n,).

    Args:
        kv_index: Packed positions on the path to each segment, end to end, shape (k,).
        cu_seqlens_q: Where segments begin and end in the row, shape (s + 1,).
        cu_seqlens_k: Where their paths begin and end in `kv_index`, shape (s + 1,).
    """
    lengths = (cu_seqlens_k[1:] - cu_seqlens_k[:-1]).long()
    ends = torch.repeat_interleave(cu_seqlens_q[1:].long(), lengths)
    n = int(cu_seqlens_q[-1])
    subtrees = torch.zeros(n, dtype=torch.long, device=kv_index.device)
    return subtrees.scatter_reduce(0, kv_index.long(), ends, reduce="amax")


def dense_mask(ends: Tensor) -> Tensor:
    """The attention mask: bool, shape (1, 1, n, n)."""
    at = torch.arange(len(ends), device=ends.device)
    return ((at[:, None] >= at[None, :]) & (at[:, None] < ends[None, :]))[None, None]


def mask_function(ends: Tensor) -> Callable[[Any, Any, Any, Any], Tensor]:
    """The attention mask as FlexAttention's function."""

    def allowed(_batch: Any, _head: Any, q: Any, k: Any) -> Tensor:
        visible: Tensor = (q >= k) & (q < ends[k])
        return visible

    return allowed


def _block_mask(ends: Tensor) -> Any:
    """The attention mask as a FlexAttention block mask."""
    from torch.nn.attention.flex_attention import create_block_mask

    n = len(ends)
    return create_block_mask(mask_function(ends), None, None, n, n, device=str(ends.device))


@dataclass(frozen=True)
class Segment:
    """A run of the row without branches: its queries, and the positions on its path."""

    start: int
    end: int
    path: Tensor
    mask: Tensor
    """Which positions of the path each query may look at, bool, shape (end - start, len(path))."""


WORTHWHILE: Final = 64
"""Mean tokens of a segment from which on a call of its own costs less than masking."""


def segments(kv_index: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor) -> list[Segment]:
    """The tree's segments. The end of a segment's path is the segment itself."""
    q, k = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
    parts = []
    for index, (start, end) in enumerate(itertools.pairwise(q)):
        path = kv_index[k[index] : k[index + 1]].long()
        own = torch.ones(end - start, len(path), dtype=torch.bool, device=kv_index.device)
        parts.append(Segment(start, end, path, own.tril(len(path) - (end - start))))
    return parts


def mask_for(inputs: dict[str, Tensor], device: torch.device) -> Any:
    """The mask of a packed row, made once and used by every layer."""
    tree = (inputs["tree_kv_index"], inputs["tree_cu_seqlens_q"], inputs["tree_cu_seqlens_k"])
    if device.type != "cpu":
        return _block_mask(subtree_ends(*tree).to(device))
    many = len(inputs["tree_cu_seqlens_q"]) - 1
    if int(inputs["tree_cu_seqlens_q"][-1]) >= many * WORTHWHILE:
        return segments(*tree)
    return dense_mask(subtree_ends(*tree))


_compiled: dict[str, Any] = {}


def _flex(query: Tensor, key: Tensor, value: Tensor, mask: Any, scaling: float | None) -> Tensor:
    if "flex" not in _compiled:
        from torch.nn.attention.flex_attention import flex_attention

        _compiled["flex"] = torch.compile(flex_attention, dynamic=True)
    out: Tensor = _compiled["flex"](
        query, key, value, block_mask=mask, scale=scaling, enable_gqa=query.size(1) != key.size(1)
    )
    return out


def _along(
    query: Tensor, key: Tensor, value: Tensor, segment: Segment, scaling: float | None
) -> Tensor:
    """Attention of one segment's queries to its path."""
    return torch.nn.functional.scaled_dot_product_attention(
        query[:, :, segment.start : segment.end],
        key.index_select(2, segment.path),
        value.index_select(2, segment.path),
        attn_mask=segment.mask,
        scale=scaling,
        enable_gqa=query.size(1) != key.size(1),
    )


def tree_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    tree_mask: Any,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    longest: int = 0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer; query, key and value have the shape (1, heads, n, head_dim).

    Sliding windows count positions, not packed indices: not supported, and refused, unless rows are
    never longer than they are (`longest`; 0: nobody knows), so that they hide nothing. Caps and
    sinks change what attention is, and are refused, too.
    """
    del module, attention_mask
    if sliding_window is not None and not 0 < longest <= sliding_window:
        raise NotImplementedError("tree attention knows no sliding window")
    if softcap is not None or s_aux is not None:
        raise NotImplementedError("tree attention knows no caps and no sinks")
    if isinstance(tree_mask, list):
        out = torch.cat([_along(query, key, value, part, scaling) for part in tree_mask], dim=2)
    elif isinstance(tree_mask, Tensor):
        out = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=tree_mask, scale=scaling,
            enable_gqa=query.size(1) != key.size(1),
        )  # fmt: skip
    else:
        out = _flex(query, key, value, tree_mask, scaling)
    return out.transpose(1, 2).contiguous(), None


def _no_mask(**_: Any) -> None:
    """No mask from transformers: ours travels as a keyword."""


def register(longest: int = 0) -> None:
    """Take the place of TRL's kernel. To be called after TRL's trainer has registered its own.

    Args:
        longest: Tokens of the longest row, 0 where nothing bounds it: see `tree_attention`.
    """
    AttentionInterface.register(NAME, partial(tree_attention, longest=longest))
    AttentionMaskInterface.register(NAME, _no_mask)
