"""proxy/log."""
