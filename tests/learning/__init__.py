"""`scripts/prove losses`: every loss learns the game from the same recorded batches."""
