"""A proxy over a log in memory, and what its log must hold after the calls of an agent."""
