"""Verbs that watch a run while it goes on, and look at it when it is over."""
