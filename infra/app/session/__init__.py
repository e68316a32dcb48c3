"""infra/app/session."""
