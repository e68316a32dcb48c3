"""trainer/step."""
