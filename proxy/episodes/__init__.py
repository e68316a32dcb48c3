"""proxy/episodes."""
