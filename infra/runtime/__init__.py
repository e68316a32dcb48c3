"""infra/runtime."""
