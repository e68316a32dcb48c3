"""LoRA: a small adapter is trained in place of a model's weights (arXiv 2106.09685).

`shape` says what an adapter is and what its files hold (pure), `files` writes and reads them.
`lora` puts an adapter into a model, `policies` makes the frozen policies of it that losses compare
with, `base` tells whether a checkpoint's adapter belongs to a model, and `transfer` brings each
version to the engines.
"""
