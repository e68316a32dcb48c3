"""torch's compiler, layer by layer. Never run on a card.

The layers of a model are alike, so each is compiled as a region of its own and the second finds
the first one's code: a start compiles one layer instead of the whole model. Sizes are dynamic,
since micro-batches differ in length.
"""

from typing import Any

from transformers.modeling_layers import GradientCheckpointingLayer

from odradek.trainer.errors import BadSettings


def compile_layers(model: Any) -> int:
    """Have each layer compiled at its first pass; returns how many there are.

    Raises BadSettings for a model whose layers cannot be told apart.
    """
    layers = [part for part in model.modules() if isinstance(part, GradientCheckpointingLayer)]
    if not layers:
        raise BadSettings(
            f"compile_layers is true, but {type(model).__name__} has no layers that can be "
            "compiled by themselves: set compile_layers = false"
        )
    for layer in layers:
        layer.compile(dynamic=True)
    return len(layers)
