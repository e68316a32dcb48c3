"""agents/dispatch."""
