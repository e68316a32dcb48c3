"""One step's loss and gradient, as our trainer comes to them."""

import torch

from odradek.trainer.feed.rollout_worker import sample_of


def gradient_of(model):
    """All parameters' gradients, by name, as one vector."""
    return torch.cat([p.grad.flatten() for _, p in sorted(model.named_parameters())])


def loss_of(trainer, rows, micro_batches):
    """The loss of a step over these rows; its gradient stands in the trainer's model."""
    feed = trainer.parts.feed
    feed.rollout_buffer = trainer.rollout_queue = type(feed.rollout_buffer)()
    for row in rows:
        feed.rollout_buffer.put(sample_of(row))
    batches, _ = trainer.get_batch_samples(
        iter(trainer.get_train_dataloader()), micro_batches, "cpu"
    )
    trainer.model.train()
    total = 0.0
    for inputs in batches:
        part = trainer.compute_loss(trainer.model, inputs)
        part.backward()
        total += part.item()
    return total
