"""agents/attempt."""
