"""proxy/engines."""
