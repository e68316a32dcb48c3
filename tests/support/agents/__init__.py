"""Coding agents with their table in the docs, and the judges that the docs show."""
