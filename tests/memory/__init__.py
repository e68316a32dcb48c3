"""Whether a long run takes more and more memory, and what rows have to do with it."""
