"""infra/app."""
