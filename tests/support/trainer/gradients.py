"""One step's loss and gradient, as our trainer comes to them."""

import torch
import trl.trainer.utils
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm


def gradient_of(model):
    """All parameters' gradients, by name, as one vector."""
    return torch.cat([p.grad.flatten() for _, p in sorted(model.named_parameters())])


def loss_of(trainer, rows):
    """The loss of a step over these rows; its gradient stands in the trainer's model."""
    trainer.model.zero_grad()
    trainer.measured.forget()
    return trainer.training_step(trainer.model, rows).item()


def compute_in_the_weights_type(monkeypatch):
    """Let a Qwen3 compute all in the type of its weights, in float64 where these are."""
    monkeypatch.setattr(Qwen3RMSNorm, "forward", precise_norm)
    monkeypatch.setattr(trl.trainer.utils, "_ChunkedLogProbFunction", PlainKernel)


class PlainKernel:
    """In the place of TRL's, which computes in float32 whatever it is given."""

    @staticmethod
    def apply(hidden, weight, _bias, targets, temperature, *_):
        """Log probability and entropy of each position, and what nobody has asked for."""
        every = (hidden @ weight.T / temperature).log_softmax(-1)
        chosen = every.gather(1, targets[:, None])[:, 0]
        return chosen, -(every.exp() * every).sum(-1), None, None, None


def precise_norm(self, hidden):
    """Qwen3's, in the type that it is given."""
    size = hidden.pow(2).mean(-1, keepdim=True)
    return self.weight * hidden * torch.rsqrt(size + self.variance_epsilon)
