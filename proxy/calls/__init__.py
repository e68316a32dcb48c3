"""proxy/calls."""
