"""What a run must come to by its seed, what the log holds, and how the two compare."""
