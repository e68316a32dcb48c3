"""Verbs that run one process each, and a replay."""
