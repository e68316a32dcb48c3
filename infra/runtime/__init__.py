"""Needed by every process, and below them all.

`environment` puts the surroundings right before anything listens to them, `addresses` reads where
to listen, `telemetry` and `metrics` report, `episode_tokens` and `reward_signatures` prove who
calls, `imports` finds a user's function, `foreign_code` keeps what it raises, `crash_points` are
where tests kill, `process` begins and ends each process, `loop_thread` runs an event loop beside
torch.
"""
