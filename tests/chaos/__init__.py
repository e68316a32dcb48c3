"""Chaos: real processes on a real broker, killed on a seeded schedule, then counted from the log."""
