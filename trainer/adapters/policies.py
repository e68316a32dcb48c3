"""Frozen policies that losses compare with: a model without its adapter, or with an older one.

Where an adapter is trained, the policy that the run began with is the model without it, and an
older policy is the model with older matrices. So neither takes a second model.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.func import functional_call

from odradek.trainer.adapters.lora import LoraAdapter


class WithoutAdapter:
    """A model as it was before it got its adapter: the reference policy of a KL term."""

    def __init__(self, model: Any, adapter: LoraAdapter) -> None:
        self._model = model
        self._adapter = adapter

    def __call__(self, **inputs: Any) -> Any:
        """What the base model says; without gradient."""
        with torch.no_grad(), self._adapter.off():
            return self._model(**inputs)


class OlderAdapter:
    """A model with a copy of its adapter's matrices in their place: the proximal policy."""

    def __init__(self, model: Any, adapter: LoraAdapter) -> None:
        self._model = model
        self._tensors = {name: p.detach().clone() for name, p in adapter.tensors().items()}

    def parameters(self) -> Iterable[torch.Tensor]:
        """The copied matrices, in the order of the adapter's."""
        return self._tensors.values()

    def named_parameters(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The same with their names in the model."""
        yield from self._tensors.items()

    def __call__(self, **inputs: Any) -> Any:
        """What the model says with them; without gradient and without dropout."""
        was_training = self._model.training
        self._model.eval()
        try:
            with torch.no_grad():
                return functional_call(self._model, self._tensors, (), inputs)
        finally:
            self._model.train(was_training)
