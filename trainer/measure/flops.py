"""Floating point operations of a training step, counted as in PaLM (arXiv 2204.02311, appendix B).

A token costs 2 operations for each weight that it is multiplied with, forward, and twice as many
backward: 6 N. Attention multiplies each query with each key that it may look at, and each weight of
attention with a value: 4 operations for each of the H heads' Q numbers forward and 12 with
backward, in each of L layers. PaLM has 12 L H Q T for a token, where T is the length of the
sequence; here the pairs that a mask lets through are counted themselves.

What is computed more than once (activation checkpointing) or without gradients (a reference model)
counts for nothing: the operations are those that the model needs, whatever the trainer does.
Weights that are not trained are counted as if they were.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Any, Final

BACKWARD: Final = 3
"""Forward and backward cost so many times what forward costs."""
HEADS: Final = ("lm_head.", "output_layer.")
"""What the names of a head's weights hold."""


@dataclass(frozen=True)
class ModelCost:
    """Sizes of a model that its operations depend on.

    Attributes:
        layer_weights: Weights that each token is multiplied with, those of the head left out. Of
            experts, as many as a token is sent to.
        head_weights: Weights of the head: vocabulary x width.
        attention_width: L x H x Q: numbers of a query, over all heads and layers; where keys and
            values differ, their mean.
    """

    layer_weights: int
    head_weights: int
    attention_width: int

    def step(self, tokens: float, scored: float, pairs: float) -> float:
        """Operations of forward and backward.

        Args:
            tokens: That went through the layers.
            scored: Of them, those that went through the head.
            pairs: Of a query and a key that it may look at, in one layer.
        """
        forward = 2 * self.layer_weights * tokens + 2 * self.head_weights * scored
        return BACKWARD * (forward + 4 * self.attention_width * pairs)


def cost_of(config: Any, shapes: Iterable[tuple[str, tuple[int, ...]]]) -> ModelCost:
    """The cost of a causal language model.

    Args:
        config: Of transformers.
        shapes: Name and shape of each parameter, each once. Vectors (norms, biases) cost next to
            nothing and are left out, and so is the table of embeddings, which is looked up.
    """
    layers, head = 0, 0
    share = _active_experts(config)
    embedded = 0
    for name, shape in shapes:
        if len(shape) < 2:
            continue
        size = prod(shape)
        if "embed_" in name or ".wte." in name or ".wpe." in name:
            embedded = max(embedded, size)
        elif any(part in name for part in HEADS):
            head = size
        else:
            layers += round(size * share) if ".experts." in name else size
    # A head that shares the table of embeddings has no weights of its own to list.
    return ModelCost(layers, head or embedded, _attention_width(config))


def _active_experts(config: Any) -> float:
    """The share of the experts that a token is sent to."""
    active = getattr(config, "num_experts_per_tok", None)
    for name in ("num_experts", "num_local_experts", "n_routed_experts"):
        if active and (experts := getattr(config, name, None)):
            return float(active) / float(experts)
    return 1.0


def _attention_width(config: Any) -> int:
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    keys = getattr(config, "qk_head_dim", None) or width
    values = getattr(config, "v_head_dim", None) or width
    return int(config.num_hidden_layers * heads * (keys + values)) // 2
