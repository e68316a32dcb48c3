"""`scripts/prove replay-learning`: whether replay in training needs fewer fresh rollouts."""
