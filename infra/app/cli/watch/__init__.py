"""Verbs that watch a run: its pages in a browser, backlogs, metrics and alarms."""
