"""`scripts/gpu`: what the trainer does on a card, in parts that each have a time-out."""
