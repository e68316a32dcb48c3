"""Verbs that look: settings, topics, dead letters, conservation, benchmarks."""
