"""trainer/feed."""
