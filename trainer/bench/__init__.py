"""Measurements of the trainer's own parts, in one process.

`step` times one training step in the forms that its rows may have; `odradek bench trainer` prints
it, with what `infra/app/bench` measures of a trainer process.
"""

from odradek.trainer.bench.step import batch_of, measure

__all__ = ["batch_of", "measure"]
