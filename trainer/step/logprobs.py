"""Log probabilities of sampled tokens, each at the temperature that it was sampled at.

TRL's fused head knows one temperature, and one score for each position. In a packed tree two rows
that sampled the same token at a shared position may have done so at two temperatures: so the head
is asked once for each temperature, with the hidden states of the tokens that have it. That is
exact for every model, whatever scales, caps or biases its logits.
"""

import copy
from types import MethodType, SimpleNamespace
from typing import Any, NamedTuple

import torch
from trl.trainer.utils import add_fused_lm_head

Tensor = torch.Tensor


class Targets(NamedTuple):
    """Sampled tokens of a packed row; tensors have the shape (m,)."""

    at: Tensor
    """The position whose prediction each token is, int64."""
    labels: Tensor
    """Its id."""
    temperatures: Tensor
    """The temperature at which it was sampled, float32."""


class TokenScores(NamedTuple):
    """Scores of each target, shape (m,), with gradient where the model has one."""

    logprobs: Tensor
    entropy: Tensor
    """Entropy of the distribution that it was sampled from, in nats; without gradient unless the
    head was asked for it, which costs no pass but its own term in the head's."""


class _Given:
    """In a model's place before TRL's head: its hidden states are there already."""

    def __init__(self, model: Any, temperature: float) -> None:
        self._model = model
        # The loss of a router, which TRL's head would add, is none of ours.
        text = copy.copy(model.config.get_text_config())
        text.output_router_logits = False
        self.config = SimpleNamespace(get_text_config=lambda: text)
        add_fused_lm_head(self, temperature=temperature, outputs=("log_probs", "entropy"))

    def forward(self, hidden: Tensor) -> Any:
        """The model's part before the head, as TRL expects it."""
        raise NotImplementedError

    def base_model(self, hidden: Tensor, **_: Any) -> Any:
        """The hidden states."""
        return SimpleNamespace(last_hidden_state=hidden)

    def get_output_embeddings(self) -> Any:
        """The model's own: a wrapper may have replaced them since."""
        return self._model.get_output_embeddings()


class TemperatureHead:
    """Scores targets of one model.

    Args:
        model: With hidden states and an output embedding.
        entropy_gradient: Whether entropies have a gradient, for an entropy bonus.
    """

    def __init__(self, model: Any, *, entropy_gradient: bool = False) -> None:
        self._model = model
        self._entropy_gradient = entropy_gradient

    def score(self, hidden: Tensor, targets: Targets) -> TokenScores:
        """Scores from hidden states of the shape (n, d)."""
        kind = torch.promote_types(hidden.dtype, torch.float32)  # TRL's scores are never less
        empty = torch.zeros(len(targets.at), dtype=kind, device=hidden.device)
        logprobs, entropy = empty, empty
        warm = targets.temperatures.unique()  # type: ignore[no-untyped-call] # torch's are untyped
        for temperature in warm.tolist():
            chosen = (targets.temperatures == temperature).nonzero()[:, 0]
            # Rows of a tree share positions: each is scored once.
            positions = targets.at[chosen]
            places, inverse = positions.unique(return_inverse=True)  # type: ignore[no-untyped-call] # so here
            labels = targets.labels.new_zeros(len(hidden))
            labels[positions] = targets.labels[chosen]
            fused: Any = _Given(self._model, temperature)
            scores = fused.forward(
                hidden[places][None], shift_labels=labels[places][None], fused_lm_head=True
            )
            logprobs = logprobs.index_copy(0, chosen, scores.log_probs[0][inverse])
            of_targets = scores.entropy[0][inverse]
            kept = of_targets if self._entropy_gradient else of_targets.detach()
            entropy = entropy.index_copy(0, chosen, kept)
        return TokenScores(logprobs, entropy)


def add_head(model: Any, *, entropy_gradient: bool = False) -> None:
    """Let `model(..., targets=...)` return TokenScores; any other call is the model's as before."""
    before, head = model.forward, TemperatureHead(model, entropy_gradient=entropy_gradient)

    def forward(self: Any, *args: Any, targets: Targets | None = None, **kwargs: Any) -> Any:
        if targets is None:
            return before(*args, **kwargs)
        hidden = self.base_model(*args, use_cache=False, **kwargs).last_hidden_state
        return head.score(hidden[0], targets)

    model.forward = MethodType(forward, model)
