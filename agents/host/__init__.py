"""agents/host."""
