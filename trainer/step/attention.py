"""Attention over a packed tree of rows, where TRL would fetch a FlashAttention-3 kernel from a hub.

Rows of a micro-batch lie in one prefix tree, in depth-first order (`plan.prefix_tree`), so that
shared beginnings are computed once. Token q may look at token k exactly if k <= q < end(k), where
end(k) is where k's subtree ends. In a layer with a sliding window of w tokens, k must stand less
than w tokens before q on its path, too.

On a CPU this is one mask for SDPA where the tree is small, and one call for each branch where it is
large. On a GPU it is a block mask for FlexAttention, which skips what is hidden 128 by 128. It is
made from the ends alone: the mask of n x n from which FlexAttention would make it takes 10 bytes
for each pair of tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface
from trl.experimental.async_grpo.packing import TREE_ATTENTION

from odradek.trainer.plan.prefix_tree import Branch, PrefixTree

Tensor = torch.Tensor
NAME: Final = str(TREE_ATTENTION)
"""The name under which TRL's trainer asks for its kernel."""
BLOCK: Final = 128
"""Tokens on a side of FlexAttention's blocks."""
WORTHWHILE: Final = 64
"""Mean tokens of a branch from which on a call of its own costs less than masking."""


class TreeMask:
    """Who looks at whom in a packed tree: made once, used by every layer.

    Layers of one model may look back differently far, so there is a mask for each window.
    """

    def __init__(self, tree: PrefixTree, device: torch.device) -> None:
        self._tree = tree
        self._device = device
        self._longest = int(tree.positions.max()) + 1
        self._by_window: dict[int, Any] = {}

    def of(self, window: int | None) -> Any:
        """The mask of a layer that looks back over `window` tokens, its own among them.

        None is everything. A Tensor, a list of Segments, or a BlockMask.
        """
        reach = self._longest if window is None else min(window, self._longest)
        if reach not in self._by_window:
            self._by_window[reach] = self._made(reach)
        return self._by_window[reach]

    def _made(self, reach: int) -> Any:
        tree = self._tree
        if self._device.type != "cpu":
            return block_mask(tree, reach, self._device)
        if len(tree) >= len(tree.branches) * WORTHWHILE:
            return [segment_of(branch, reach) for branch in tree.branches]
        return dense_mask(tree, reach)


def dense_mask(tree: PrefixTree, reach: int) -> Tensor:
    """The attention mask: bool, shape (1, 1, n, n)."""
    at = torch.arange(len(tree))
    return _mask_function(torch.from_numpy(tree.ends), torch.from_numpy(tree.positions), reach)(
        0, 0, at[:, None], at[None, :]
    )[None, None]


def _mask_function(ends: Tensor, positions: Tensor, reach: int) -> Callable[..., Tensor]:
    """The attention mask as FlexAttention's function.

    Args:
        ends: Where each subtree ends, shape (n,).
        positions: How many tokens stand before each, shape (n,).
        reach: How far back a token looks, itself included.
    """

    def allowed(_batch: Any, _head: Any, q: Any, k: Any) -> Tensor:
        seen: Tensor = (q >= k) & (q < ends[k]) & (positions[q] - positions[k] < reach)
        return seen

    return allowed


def block_mask(tree: PrefixTree, reach: int, device: torch.device) -> Any:
    """The same as a FlexAttention block mask, made from the ends of each block of 128 tokens."""
    from torch.nn.attention.flex_attention import BlockMask

    ends, positions = (_padded(values) for values in (tree.ends, tree.positions))
    partial, full = blocks(tree, reach)
    ends_there, positions_there = (
        torch.from_numpy(values.reshape(-1)).to(device) for values in (ends, positions)
    )
    return BlockMask.from_kv_blocks(
        *_listed(partial, device),
        *_listed(full, device),
        BLOCK_SIZE=BLOCK,
        mask_mod=_mask_function(ends_there, positions_there, reach),
        seq_lengths=(len(tree), len(tree)),
    )


def blocks(tree: PrefixTree, reach: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Blocks of which something is seen, and those of which all is; bool, shape (b, b), q by k.

    A block that might be seen counts as seen in part: the mask's function decides there.
    """
    ends, positions = _padded(tree.ends), _padded(tree.positions)
    edges = np.arange(len(ends)) * BLOCK
    last = np.minimum(edges + BLOCK, len(tree))
    before = np.tri(len(ends), k=-1, dtype=np.bool_)
    near = positions.min(1)[:, None] - positions.max(1)[None, :] < reach
    seen = (ends.max(1)[None, :] > edges[:, None]) & near & np.tri(len(ends), dtype=np.bool_)
    all_near = positions.max(1)[:, None] - positions.min(1)[None, :] < reach
    full = (ends.min(1)[None, :] >= last[:, None]) & all_near & before
    return seen & ~full, full


def _padded(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """In blocks, shape (b, 128); behind the last token stand copies of it, which nobody sees."""
    return np.pad(values, (0, -len(values) % BLOCK), mode="edge").reshape(-1, BLOCK)


def _listed(chosen: npt.NDArray[np.bool_], device: torch.device) -> tuple[Tensor, Tensor]:
    """How many blocks of each row are chosen, and their places, these first."""
    order = np.argsort(~chosen, axis=1, kind="stable").astype(np.int32)
    counts = chosen.sum(1).astype(np.int32)
    return tuple(torch.from_numpy(values)[None, None].to(device) for values in (counts, order))  # type: ignore[return-value] # two of them


@dataclass(frozen=True)
class Segment:
    """The tokens of a branch, which look along one path.

    Attributes:
        start: The packed position of the first.
        end: The packed position behind the last.
        path: The packed positions of its row's tokens, shape (k,); its own are the last of them.
        mask: Who of the path each looks at, bool, shape (own, k); None where each looks back along
            all of the path.
    """

    start: int
    end: int
    path: Tensor
    mask: Tensor | None


def segment_of(branch: Branch, reach: int) -> Segment:
    """A branch as a call of attention.

    Where most of a path is the branch's own, all of the path looks back along itself, and what its
    beginning sees is thrown away: a causal call reads no mask and skips the pairs that none has,
    so it costs k^2 / 2 of them, where a mask costs own times k.
    """
    own, length = branch.own, len(branch.path)
    path, end = torch.from_numpy(branch.path), branch.start + own
    if reach >= length and 2 * own > length:
        return Segment(branch.start, end, path, None)
    seen = torch.ones(own, length, dtype=torch.bool).tril(length - own)
    return Segment(branch.start, end, path, seen.triu(length - own - reach + 1))


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
    causal, own = segment.mask is None, slice(segment.start, segment.end)
    out = torch.nn.functional.scaled_dot_product_attention(
        query.index_select(2, segment.path) if causal else query[:, :, own],
        key.index_select(2, segment.path),
        value.index_select(2, segment.path),
        attn_mask=segment.mask,
        is_causal=causal,
        scale=scaling,
        enable_gqa=query.size(1) != key.size(1),
    )
    return out[:, :, segment.start - segment.end :]


def tree_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    tree_mask: TreeMask,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer; query, key and value have the shape (1, heads, n, head_dim).

    Caps and sinks change what attention is: they are refused.
    """
    del module, attention_mask
    if softcap is not None or s_aux is not None:
        raise NotImplementedError("tree attention knows no caps and no sinks")
    mask = tree_mask.of(sliding_window)
    if isinstance(mask, list):
        out = torch.cat([_along(query, key, value, one, scaling) for one in mask], dim=2)
    elif isinstance(mask, Tensor):
        out = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=scaling,
            enable_gqa=query.size(1) != key.size(1),
        )  # fmt: skip
    else:
        out = _flex(query, key, value, mask, scaling)
    return out.transpose(1, 2).contiguous(), None


def _no_mask(**_: Any) -> None:
    """No mask from transformers: ours travels as a keyword."""


def register() -> None:
    """Take the place of TRL's kernel. To be called after TRL's trainer has registered its own."""
    AttentionInterface.register(NAME, tree_attention)
    AttentionMaskInterface.register(NAME, _no_mask)
