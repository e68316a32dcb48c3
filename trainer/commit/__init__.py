"""trainer/commit."""
