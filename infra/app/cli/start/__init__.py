"""Verbs to begin with: a project, a broker, topics, tasks, a token, the demo."""
