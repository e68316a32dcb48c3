"""proxy/dialects/translation."""
